"""Any text replaced byte by byte, in whatever layer a site keeps it: cases as data, and values of any form."""

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import replacement
from tests.playbooks.node_modules import load
from tests.playbooks.test_rewrite import php

rewriting = load("content.rewrite_text")
OLD, NEW = "Acme & Söhne", 'Acme "plc" \\ <b>--é'


def block(text: str) -> bytes:
    """As WordPress's serialize_block_attributes writes a text."""
    form = json.dumps(text, ensure_ascii=False)
    for plain, code in (("--", r"\u002d\u002d"), ("<", r"\u003c"), (">", r"\u003e"), ("&", r"\u0026")):
        form = form.replace(plain, code)
    return form.replace('\\"', r"\u0022").encode()


def read(value: bytes, old: str = OLD, new: str = NEW) -> Any:
    return rewriting.TextRewriter(old, new).read(value)


def slashed(value: Any) -> bytes:
    """As PHP's json_encode has it."""
    return json.dumps(value).replace("/", r"\/").encode()


CASES = {
    "text": (f"by {OLD}!".encode(), f"by {NEW}!".encode()),
    "serialized": (php({"a": [OLD, 1], "b": f"x{OLD}{OLD}"}), php({"a": [NEW, 1], "b": f"x{NEW}{NEW}"})),
    "serialized twice": (php(php([OLD])), php(php([NEW]))),
    "base64": (base64.b64encode(f"of {OLD}.".encode()), base64.b64encode(f"of {NEW}.".encode())),
    "a widget": (php({2: {"text": f"<p>{OLD}</p>"}}), php({2: {"text": f"<p>{NEW}</p>"}})),
}
READ_AS_JSON = {
    "whole": {"t": [OLD, {"u": f"a/{OLD}"}]},
    "twice": {"t": json.dumps({"u": f"{OLD}/"})},
}


@pytest.mark.parametrize(("before", "after"), CASES.values(), ids=CASES)
def test_a_case(before: bytes, after: bytes) -> None:
    found = read(before)
    assert (found.value, found.left) == (after, [])
    assert read(after).value == after


@pytest.mark.parametrize("name", READ_AS_JSON)
@pytest.mark.parametrize("write", [slashed, lambda value: json.dumps(value, ensure_ascii=False).encode()])
def test_json_says_the_new_text(name: str, write: Any) -> None:
    def replaced(value: Any) -> Any:
        if isinstance(value, str):
            is_inner = value.startswith("{")
            return json.dumps(replaced(json.loads(value))) if is_inner else value.replace(OLD, NEW)
        if isinstance(value, dict):
            return {key: replaced(one) for key, one in value.items()}
        return [replaced(one) for one in value]

    def understood(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("{"):
            return understood(json.loads(value))
        if isinstance(value, dict):
            return {key: understood(one) for key, one in value.items()}
        return value

    found = read(write(READ_AS_JSON[name]))
    assert found.left == []
    assert understood(json.loads(found.value)) == understood(replaced(READ_AS_JSON[name]))


def test_what_a_block_says_of_itself_stays_json_in_a_comment() -> None:
    text = b'<!-- wp:acme/card {"title":%s,"n":1} --><p>%s</p><!-- /wp:acme/card -->'
    found = read(text % (block(OLD), OLD.encode()))
    attributes = re.search(rb"<!-- wp:acme/card (.*?) -->", found.value)
    assert attributes
    assert json.loads(attributes[1]) == {"title": NEW, "n": 1}
    assert found.value.endswith(b"<p>%s</p><!-- /wp:acme/card -->" % NEW.encode())


def test_marks_of_json_change_only_as_long_as_it_stays_json() -> None:
    text = b'<!-- wp:heading {"level":2} --><h2>x</h2>'
    assert read(text, '"level":2', '"level":3').value == text.replace(b"2}", b"3}")
    found = read(text, '"level":2', '"level')
    assert found.value == text
    assert [why for why, _ in found.left] == [rewriting.NO_JSON]


@pytest.mark.parametrize(
    "value",
    [php({OLD: 1}), json.dumps({OLD: 1}, ensure_ascii=False).encode(), b's:99:"' + OLD.encode() + b'"; a:1:{'],
    ids=["key of a list", "key of JSON", "a length that is wrong"],
)
def test_what_is_not_safe_stays_and_is_told(value: bytes) -> None:
    found = read(value)
    assert found.value == value
    assert found.left


def test_a_text_that_has_itself_in_it_goes_in_once() -> None:
    assert read(b"shop, shop", "shop", "shopshop").value == b"shopshop, shopshop"


@pytest.mark.parametrize(
    ("search", "replace"),
    [
        ("", "x"),
        ("a", "b"),
        ("  ", "x"),
        ("x" * 1001, "y"),
        ("ab", "y" * 1001),
        ("ab", "ab"),
        ("a\nb", "c"),
        ("a\u2028b", "c"),
        ("ab", "\0"),
    ],
)
def test_texts_that_make_no_sense(search: str, replace: str) -> None:
    assert rewriting.refusal(search, replace)
    assert replacement.refusal(search, replace)


TEXTS = st.text(st.one_of(st.sampled_from("ab \u00a0\n\0\u2028\ufeff\x9f"), st.characters(codec="utf-8")), max_size=6)


@given(TEXTS, TEXTS)
def test_control_plane_and_node_refuse_the_same(search: str, replace: str) -> None:
    """Neither has the other's code, and a playbook by hand is asked by the node alone."""
    assert (rewriting.refusal(search, replace) is None) == (replacement.refusal(search, replace) is None)


LEAVES = st.one_of(st.integers(-9, 9), st.booleans(), st.none(), st.text('ab Foo"\\/é<>&-;:{}', max_size=12))
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", max_size=3), inner, max_size=3)
)


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("Foo", 'b"\\')
    if isinstance(value, list):
        return [_texts(one) for one in value]
    return {key: _texts(one) for key, one in value.items()} if isinstance(value, dict) else value


def _is_plain(value: Any) -> bool:
    """No text in it is read as more than text: such as a string that is JSON itself."""
    if isinstance(value, str):
        return not re.match(r'\s*[\[{"]', value) and not re.search(r"[asOC]:", value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(map(_is_plain, inner))


@given(VALUES.filter(_is_plain))
def test_any_value_in_php_and_json_says_the_new_text(value: Any) -> None:
    if isinstance(value, list | dict):
        assert read(php(value), "Foo", 'b"\\').value == php(_texts(value))
        found = read(json.dumps(value).encode(), "Foo", 'b"\\').value
        assert json.loads(found) == _texts(value)
