"""Documents from bytes: what is refused, and on which line; documents to bytes: what is written reads back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from reconciler.core.entries import Document, Stalled
from reconciler.core.errors import Invalid
from reconciler.store import documents
from reconciler.store.edits import same
from reconciler.store.syntax import DEEPEST, Refused, compose, data_in, data_of

from .conftest import ENVIRONMENT, SITE


def test_a_document_is_read_as_plain_data() -> None:
    document = documents.read("a.yaml", ENVIRONMENT)
    assert isinstance(document, Document)
    assert document.data == {
        "apiVersion": "trueup/v1",
        "kind": "Environment",
        "metadata": {"name": "Production"},
        "spec": {
            "type": "production",
            "node": "web-1",
            "wordpress": {"version": "7.1.1"},
            "cache": {"fastcgi": True, "redis": True},
        },
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-7", -7), ("010", 10), ("0o17", 15), ("0x1F", 31), ("1.5", 1.5), ("1e3", 1000.0), ("~", None),
        ("", None), ("true", True), ("False", False), ("yes", "yes"), ("off", "off"), ("7.1.1", "7.1.1"),
        (".inf", ".inf"), ("2026-01-02", "2026-01-02"), ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("1:30", "1:30"), ("'1'", "1"), ('"a\\tb"', "a\tb"), ("1_000", "1_000"), ("9" * 5000, "9" * 5000),
        ("-", None), ("[1, {a: b}]", [1, {"a": "b"}]), ("|\n  x\n  y\n", "x\ny\n"), (">\n  x\n  y\n", "x y\n"),
    ],
)  # fmt: skip
def test_values(text: str, value: object) -> None:
    document = documents.read("a.yaml", f"key: {text}\n".encode())
    if text == "-":
        assert isinstance(document, Stalled)
    else:
        assert isinstance(document, Document)
        assert same(document.data, {"key": value})


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"a: 1\nb: [1,\nc: 2\n", 3, "not YAML"),
        (b"a: 1\n\n  b: 2\n", 3, "not YAML"),
        (b"a:\n\t- b\n", 2, "not YAML"),
        (b"a: 'x\n", 1, "not YAML"),
        (b"a: b: c\n", 1, "not YAML"),
        (b"a: 1\nb: \x07\n", 2, "control character"),
        (b"a: 1\nb: \x00\n", 2, "control character"),
        (b"a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", 5, "key `c` is here twice, first on line 3"),
        (b"{a: 1,\n a: 2}\n", 2, "twice"),
        (b"a: 1\n'a': 2\n", 2, "twice"),
        (b"a: 1\nb: \xff\xfe\n", 2, "not UTF-8 at byte 8"),
        (b"a: 1\nb: \xed\xa0\x80\n", 2, "not UTF-8"),
        ("a: 1\nb: 2\n".encode("utf-16"), 1, "not UTF-8"),
        (b"a: 1\nb: &x 2\n", 2, "an anchor (`&x`)"),
        (b"a:\n  - &x {}\n", 2, "an anchor (`&x`)"),
        (b"a: 1\nb: *x\n", 2, "an alias (`*x`)"),
        (b"a: 1\nb:\n  <<: {c: 1}\n", 3, "merge key"),
        (b"a: 1\nb: !!python/object/apply:os.system [id]\n", 2, "a tag"),
        (b"a: 1\nb: !vault |\n  xx\n", 2, "a tag (`!vault`)"),
        (b"a: 1\nb: !!str 1\n", 2, "a tag"),
        (b"a: 1\nb: ! 1\n", 2, "a tag"),
        (b"a: 1\n8080: 2\n", 2, "a key that is no text"),
        (b"a: 1\ntrue: 2\n", 2, "a key that is no text"),
        (b"a: 1\n? [x]\n: 2\n", 2, "a key that is no text"),
        (b"a: 1\n? \n: 2\n", 2, "a key that is no text"),
        (b"a: 1\n---\nb: 2\n", 2, "second document"),
        (b"a: 1\n...\n---\n...\n", 3, "second document"),
        (b"%YAML 1.2\n---\na: 1\n", 1, "directive"),
        (b"# c\n%TAG ! tag:x,2000:\n---\na: 1\n", 2, "directive"),
        (b"a: 1\nb: " + b"[" * 40, 2, "nested deeper than 32"),
        (b"a: " + b"[" * 200_000, 1, "nested deeper than 32"),
        (b"a: " + b"{a: " * 50_000, 1, "nested deeper than 32"),
        (b"a: " + b"x" * documents.LARGEST, None, "262144 at most"),
    ],
)
def test_what_is_no_document_stalls_with_its_line(content: bytes, line: int | None, words: str) -> None:
    stalled = documents.read("a.yaml", content)
    assert isinstance(stalled, Stalled)
    assert words in stalled.message
    assert (stalled.path, stalled.line) == ("a.yaml", line)


@pytest.mark.parametrize("content", [b"", b"\n", b"# only a comment\n", b"---\n", b"~"])
def test_an_empty_document_is_null(content: bytes) -> None:
    document = documents.read("a.yaml", content)
    assert isinstance(document, Document)
    assert document.data is None
    assert document.place_of(("spec",)) in {None, (1, 1), (2, 1)}


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ((), (2, 1)),
        (("metadata", "name"), (5, 3)),
        (("spec", "wordpress", "version"), (9, 15)),
        (("spec", "cache"), (10, 3)),
        (("spec", "cache", "redis"), (14, 5)),
        (("spec", "cache", "absent"), (10, 3)),
        (("spec", "absent", "deeper", 3), (6, 1)),
        (("spec", 0), (6, 1)),
    ],
)
def test_lines_are_those_of_the_key_or_of_what_is_around_it(
    location: tuple[str | int, ...], place: tuple[int, int]
) -> None:
    document = documents.read("a.yaml", ENVIRONMENT)
    assert isinstance(document, Document)
    assert document.place_of(location) == place


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"a: 1\nb: {c: 1, c: 2}\n", (2, 11)),
        (b"a: &x 1\n", (1, 4)),
        (b"a: 1\n  b: 2\n", (2, 4)),
        (b"a: {b: 1\n", (1, None)),
    ],
)
def test_columns_of_what_is_refused(content: bytes, place: tuple[int, int | None]) -> None:
    stalled = documents.read("a.yaml", content)
    assert isinstance(stalled, Stalled)
    assert stalled.place == place
    column = f":{place[1]}" if place[1] else ""
    assert str(stalled) == f"a.yaml:{place[0]}{column}: {stalled.message}"


def test_lines_of_list_items() -> None:
    document = documents.read("a.yaml", b"\xef\xbb\xbf# c\r\na:\r\n  - b: 1\r\n\r\n  - b: 2\r\n    c: 3\r\n")
    assert isinstance(document, Document)
    assert [document.place_of(location) for location in (("a", 0), ("a", 1, "c"), ("a", 7))] == [(3, 5), (6, 5), (2, 1)]


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["yes", "No", "null", "~", "1", "1.0", "0x1", "1e3", "{{ x }}", "a: b", "a #b", "- a", "'", '"', "\\", "", " a",
     "a ", "2026-01-01", "1:30", "<<", "=", "@a", "`a`", "a\nb", "\u2028", "\ufeff", "\x7f", "\x85", "%a",
     "---", "...", "!x"]
)  # fmt: skip
_SCALARS = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | _TEXT | st.floats(-1e6, 1e6)
VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3), max_leaves=8
)


@settings(deadline=None)
@given(st.dictionaries(_TEXT, VALUES, min_size=1, max_size=4))
@example({"a": [[], {}, [{"b": [1, {"c": {}}]}]]})
@example({"a": 1e-07, "b": -0.0, "c": 1e22})
def test_what_is_rendered_reads_back(data: dict[str, object]) -> None:
    content = documents.render(data)
    document = documents.read("a.yaml", content)
    assert isinstance(document, Document), content
    assert same(document.data, data), content


@settings(deadline=None)
@given(st.dictionaries(_TEXT, _TEXT, min_size=1, max_size=4))
def test_yaml_1_1_readers_see_the_same_text(data: dict[str, str]) -> None:
    yaml = YAML(typ="safe", pure=False)
    yaml.version = (1, 1)
    assert yaml.load(documents.render(data).decode()) == data


def test_a_new_document_tells_editors_its_schema() -> None:
    path = "sites/acme/environments/production.yaml"
    schema = documents.schema_reference(path, "Environment")
    content = documents.render({"apiVersion": "trueup/v1", "kind": "Environment", "spec": {"php": {}}}, schema)
    assert content.decode().splitlines() == [
        "# yaml-language-server: $schema=../../../schemas/environment.json",
        "apiVersion: trueup/v1",
        "kind: Environment",
        "spec:",
        "  php: {}",
    ]


@pytest.mark.parametrize("value", [b"bytes", {1: 2}, float("nan"), float("inf"), object(), "\ud800"])
def test_what_yaml_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(Invalid):
        documents.render({"a": value})


def test_a_schema_reference_cannot_break_out_of_its_comment() -> None:
    with pytest.raises(Invalid):
        documents.render({}, "x\nkind: Platform")


def test_reading_never_fails_in_another_way() -> None:
    """Every prefix, and every byte replaced: a document or stalled, never an exception."""
    for content in (SITE, ENVIRONMENT):
        for position in range(len(content)):
            for bad in (content[:position], content[:position] + b"\xc3" + content[position + 1 :]):
                assert isinstance(documents.read("a.yaml", bad), Document | Stalled)


_DOCUMENTS = st.dictionaries(_TEXT, VALUES, min_size=1, max_size=4).map(documents.render) | st.just(ENVIRONMENT)
_YAML = [
    "&a ",
    "*a",
    "!!str ",
    "%YAML 1.2\n---\n",
    "---\n",
    "...\n",
    "<<: ",
    "{",
    "}",
    "[",
    "]",
    "? ",
    "- ",
    ": ",
    "\t",
    "|\n",
]


@settings(deadline=None, max_examples=300)
@given(
    _DOCUMENTS.map(bytes.decode) | st.text("ab:-[]{}'\"|>&*!%?,#\n\t ~<", max_size=40),
    st.integers(0, 400),
    st.sampled_from(["", *_YAML]),
)
@example("a:\n  b: 1\n", 0, "a: &x 1\n")
@example("[" * (DEEPEST - 1) + "]" * (DEEPEST - 1), 0, "- ")
@example("[" * DEEPEST + "]" * DEEPEST, 0, "- ")
def test_data_alone_is_read_as_with_places(text: str, at: int, put: str) -> None:
    """Nearly all documents go through the short way: it gives the same data, and refuses the same in the same words."""
    text = text[:at] + put + text[at:]
    assert same(_told(data_in, text), _told(lambda text: data_of(compose(text)), text))


def _told(read: Callable[[str], Any], text: str) -> dict[str, Any]:
    """What comes of reading ``text``: the data, or why not."""
    try:
        return {"data": read(text)}
    except Refused as refused:
        return {"refused": refused.message, "line": refused.line, "column": refused.column}


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text("ab:-[]{}'\"|>&*!%?,#\n\t ~<", max_size=40).map(str.encode))
def test_reading_any_bytes_gives_a_document_or_stalls(content: bytes) -> None:
    result = documents.read("a.yaml", content)
    if isinstance(result, Stalled):
        assert re.search(r"\.$", result.message)
    else:
        assert isinstance(result, Document)
