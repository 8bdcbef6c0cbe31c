"""Addresses replaced byte by byte, wherever PHP and JavaScript put them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.playbooks.node_modules import load

rewriting = load("content.rewrite")

OLD, NEW = "http://old.example.com", "https://shop.new-name.example"


def php(value: Any) -> bytes:
    """A value as PHP's serialize() writes it."""
    if value is None:
        return b"N;"
    if isinstance(value, bool):
        return b"b:%d;" % value
    if isinstance(value, int):
        return b"i:%d;" % value
    if isinstance(value, float):
        return f"d:{value!r};".encode()
    if isinstance(value, str | bytes):
        data = value.encode() if isinstance(value, str) else value
        return b's:%d:"%s";' % (len(data), data)
    items = value.items() if isinstance(value, dict) else enumerate(value)
    body = b"".join(php(key) + php(item) for key, item in items)
    return b"a:%d:{%s}" % (len(value), body)


def rewrite(value: bytes, *pairs: tuple[str, str]) -> bytes:
    found = rewriting.Rewriter(pairs or [(OLD, NEW)])(value)
    assert isinstance(found, bytes)
    return found


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("http://old.example.com", "https://shop.new-name.example"),
        ("http://old.example.com/", "https://shop.new-name.example/"),
        ("https://old.example.com/a?b=c#d", "https://shop.new-name.example/a?b=c#d"),
        ('src="//old.example.com/x.png"', 'src="//shop.new-name.example/x.png"'),
        (r"http:\/\/old.example.com\/a", r"https:\/\/shop.new-name.example\/a"),
        (r"http:\\/\\/old.example.com", r"https:\\/\\/shop.new-name.example"),
        ("u=http%3A%2F%2Fold.example.com%2Fa", "u=https%3A%2F%2Fshop.new-name.example%2Fa"),
        ("see http://old.example.com. Or not", "see https://shop.new-name.example. Or not"),
        ("http://old.example.com,http://old.example.com", ",".join([NEW] * 2)),
        # Other names, other ports, and what is no address.
        ("http://big.old.example.com/", "http://big.old.example.com/"),
        ("http://old.example.com.au/", "http://old.example.com.au/"),
        ("http://old.example.community/", "http://old.example.community/"),
        ("http://old.example.com:8080/", "http://old.example.com:8080/"),
        ("me@old.example.com", "me@old.example.com"),
        ("ftp://old.example.com/", "ftp://old.example.com/"),
        ("old.example.com", "old.example.com"),
    ],
)
def test_text(before: str, after: str) -> None:
    assert rewrite(before.encode()) == after.encode()


def test_a_path_and_a_port_belong_to_an_address() -> None:
    pairs = (("http://10.0.0.1:8080/blog", "https://new.example"),)
    assert rewrite(b"http://10.0.0.1:8080/blog/a http://10.0.0.1:8080/shop", *pairs) == (
        b"https://new.example/a http://10.0.0.1:8080/shop"
    )
    assert rewrite(rb"http:\/\/10.0.0.1:8080\/blog\/a".replace(b"\\\\", b"\\"), *pairs).endswith(b"/a")


WIDGETS = {
    2: {"title": "Ünïcödé 漢 🎉", "text": f'<a href="{OLD}/a">x</a>', "filter": True, "n": 1.5, "none": None},
    "_multiwidget": 1,
}


def test_serialized_lengths_are_written_anew() -> None:
    wanted = {**WIDGETS, 2: {**WIDGETS[2], "text": f'<a href="{NEW}/a">x</a>'}}  # type: ignore[dict-item]
    assert rewrite(php(WIDGETS)) == php(wanted)


def test_serialized_inside_serialized_and_json_inside_that() -> None:
    def value(url: str) -> bytes:
        inner = php({"url": url, "json": json.dumps({"at": f"{url}/a", "list": [url]}).replace("/", "\\/")})
        return php({"nested": inner, "again": php(php(url))})

    assert rewrite(value(OLD)) == value(NEW)


def test_objects_are_kept_whole() -> None:
    def value(url: str) -> bytes:
        members = php("\0*\0url") + php(url) + php("n") + b"i:1;"
        return b'a:2:{i:0;O:8:"stdClass":2:{' + members + b"}i:1;R:2;}"

    assert rewrite(value(OLD)) == value(NEW)
    custom = b'a:1:{i:0;C:11:"ArrayObject":%d:{%s}}' % (len(OLD), OLD.encode())
    assert rewrite(custom) == custom, "only the class itself knows what it wrote"


def test_keys_stay() -> None:
    assert rewrite(php({OLD: OLD})) == php({OLD: NEW})


@pytest.mark.parametrize(
    "broken",
    [
        b's:9999:"' + OLD.encode() + b'";',
        php(WIDGETS)[:-1],
        php(WIDGETS) + b"tail",
        php({"a": OLD}).replace(b"s:22", b"s:21"),
        b"a:1:{i:0;x}" + OLD.encode(),
    ],
)
def test_what_was_broken_stays_as_it_was(broken: bytes) -> None:
    assert rewrite(broken) == broken


def test_very_deep_values_do_not_end_the_run() -> None:
    deep = b"a:1:{i:0;" * 20_000 + php(OLD) + b"}" * 20_000
    assert rewrite(deep) == deep


scalars = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.just(OLD) | st.just(f"{OLD}/x")
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner), max_leaves=20
)


@given(values)
def test_any_value_is_what_php_would_write_with_the_new_address(value: Any) -> None:
    def moved(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: moved(item) for key, item in part.items()}
        if isinstance(part, list):
            return [moved(item) for item in part]
        return NEW + part[len(OLD) :] if part in (OLD, f"{OLD}/x") else part

    if isinstance(value, dict | list):
        assert rewrite(php(value)) == php(moved(value))


@given(st.binary())
def test_values_without_the_address_stay(value: bytes) -> None:
    assert rewrite(value) == value
