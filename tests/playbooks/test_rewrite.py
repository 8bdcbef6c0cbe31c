"""Addresses replaced byte by byte, wherever PHP and JavaScript put them."""

import json
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.playbooks.node_modules import load
from tests.playbooks.rewrite_cases import CASES, NEW, NEW_SITE, OLD, OLD_SITE

rewriting = load("content.rewrite")


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


LINK = OLD.encode()


def read(value: bytes) -> Any:
    return rewriting.Rewriter([(OLD, NEW)], [(OLD_SITE, NEW_SITE)]).read(value)


@pytest.mark.parametrize(("before", "after"), CASES.values(), ids=CASES)
def test_a_case(before: bytes, after: bytes) -> None:
    found = read(before)
    assert found.value == after
    assert found.left == []
    assert (found.count > 0) is (before != after)


@pytest.mark.parametrize("name", CASES)
def test_a_case_in_what_plugins_put_it_in(name: str) -> None:
    """Each case again in a list, in base64, and in both: but for what is not looked for in there."""
    before, after = CASES[name]
    html = b'<i class="http://old.example.com">', b'<i class="https://shop.new-name.example">'
    assert read(php({"a": [before, 1], "b": before})).value == php({"a": [after, 1], "b": after})
    if any(part in name for part in ("directory", "no UTF-8", "base64", "raw HTML", "data:")):
        after = before
        html = (html[0], html[0]) if "no UTF-8" in name else html
    encoded = [b64encode(link + value) for link, value in zip(html, (before, after), strict=True)]
    assert read(b"<p>" + encoded[0] + b"</p>").value == b"<p>" + encoded[1] + b"</p>"
    assert read(php({"a": encoded[0]})).value == php({"a": encoded[1]})


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
    found = read(php({OLD: OLD}))
    assert found.value == php({OLD: NEW})
    assert found.left == [(rewriting.KEY, php({OLD: OLD}).decode())]


BROKEN = [
    b's:9999:"' + OLD.encode() + b'";',
    php(WIDGETS)[:-1],
    php(WIDGETS) + b"tail",
    php({"a": OLD}).replace(b"s:22", b"s:21"),
    b"a:1:{i:0;x}" + OLD.encode(),
    b"a:99999999:{i:0;" + php(OLD),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_what_was_broken_stays_as_it_was(broken: bytes) -> None:
    found = read(broken)
    assert found.value == broken
    assert [why for why, _ in found.left] == [rewriting.BROKEN]
    whole = read(php([broken, OLD]))
    assert (whole.value, len(whole.left)) == (php([broken, NEW]), 1), "and what is beside it does not"


TOKEN = b64encode(b'{"iss":"http://old.example.com","n":1}')


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"eyJhbGciOiJIUzI1NiJ9." + TOKEN + b".c2lnbmF0dXJl", "SIGNED"),
        (b"x" + TOKEN, "BASE64"),
        (b64encode(LINK + b"/12").rstrip(b"="), "BASE64"),
        (b64encode(LINK + b"/") + b"more", "BASE64"),
        (b64encode(b"\x89PNG\r\n\x1a\n" + LINK), "BINARY"),
        (b"atob('" + b64encode(b"??????" + OLD.encode()).replace(b"/", rb"\/") + b"')", "BASE64"),
        (b'<i>s:99:"http://old.example.com";', "COUNTED"),
        (b'<i>s:99:"' + TOKEN + b'";', "COUNTED"),
        (b"x = 's:22:\\'http://old.example.com\\';'", "COUNTED"),
        (b'C:3:"Own":22:{http://old.example.com}', "OWN_FORMAT"),
        (b'a:1:{i:0;C:3:"Own":24:{\x16\0http://old.example.com}}', "OWN_FORMAT"),
    ],
)
def test_what_nobody_can_read_for_certain_stays_and_is_told(value: bytes, why: str) -> None:
    found = read(value)
    assert (found.value, [reason for reason, _ in found.left]) == (value, [getattr(rewriting, why)])


def test_base64_in_base64_stays_and_is_told() -> None:
    inner = b64encode(LINK + b"/inner")
    found = read(b64encode(LINK + b" " + inner))
    assert found.value == b64encode(NEW.encode() + b" " + inner)
    assert [reason for reason, _ in found.left] == [rewriting.NESTED]


def test_an_excerpt_is_short_and_nothing_that_a_terminal_obeys() -> None:
    value = b'a:1:{i:0;s:99:"' + b"\x1b[2J\x07\xff\xe2\x80\xae" * 30 + OLD.encode() + b"\x1b]0;" + b"x" * 5000
    (_, example) = read(value).left[0]
    assert OLD in example
    assert len(example) <= 80
    assert example.isprintable()


def test_very_deep_values_do_not_end_the_run() -> None:
    def deep(levels: int, url: str) -> bytes:
        return b"a:1:{i:0;" * levels + php(url) + b"}" * levels

    assert rewrite(deep(4000, OLD)) == deep(4000, NEW)
    found = read(deep(20_000, OLD))
    assert (found.value, found.left[0][0]) == (deep(20_000, OLD), rewriting.BROKEN), "deeper than PHP reads"


def test_layers_have_an_end() -> None:
    def layers(count: int, url: str) -> bytes:
        value = url.encode()
        for _ in range(count):
            value = php(value)
        return value

    assert rewrite(layers(rewriting.LAYERS, OLD)) == layers(rewriting.LAYERS, NEW)
    found = read(layers(300, OLD))
    assert (found.value, found.left[0][0]) == (layers(300, OLD), rewriting.TOO_DEEP)


def test_more_addresses_than_anybody_writes_stay() -> None:
    value = b" ".join([LINK] * (rewriting.MOST_ADDRESSES + 1))
    found = read(value)
    assert (found.value, found.left[0][0]) == (value, rewriting.TOO_MANY)


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "backslashes": lambda size: b"\\" * size + LINK,
    "backslashes before names": lambda size: (b"\\" * 190 + b"/old.example.com") * (size // 206),
    "percent signs": lambda size: b"%5C" * (size // 3) + b"%2F%2Fold.example.com",
    "names": lambda size: b"//old.example.com" * (size // 17),
    "lists that do not end": lambda size: b"x " + b"a:1:{" * (size // 5) + b's:22:"' + LINK,
    "lists that break off": lambda size: (b"x a:9999:{" + b"N;" * 1000) * (size // 2010) + b' s:22:"' + LINK,
    "strings in a text": lambda size: b"x " + b's:1:"a";' * (size // 8) + b's:22:"' + LINK + b'";',
    "quotes": lambda size: b'"' * size + b"s:3:\\" + LINK,
    "escaped quotes": lambda size: b'"s:3:\\' + b'\\"' * (size // 2) + LINK + b'"',
    "counted strings": lambda size: b'"s:22:\\"http://old.example.com\\";"' * (size // 35),
    "attributes": lambda size: b's:22:&quot;http://old.example.com&quot;; " ' * (size // 43),
    "base64": lambda size: (b64encode(LINK) + b" ") * (size // 33),
    "one base64": lambda size: b64encode(LINK * (size // 30)),
    "encoded": lambda size: b"s%3A22%3A%22http%3A%2F%2Fold.example.com%22%3B " * (size // 47),
    "white space": lambda size: b" " * size + LINK + b" " * size,
    "keys": lambda size: b"a:%d:{" % (size // 34) + b's:22:"http://old.example.com";N;' * (size // 34) + b"}",
    "values": lambda size: php([OLD] * (size // 34)),
}


@pytest.mark.parametrize("made", HOSTILE.values(), ids=HOSTILE)
def test_time_grows_with_a_value_and_no_faster(made: Callable[[int], bytes]) -> None:
    """Eight times the bytes take no sixty-four times as long; a hacked site writes what it likes."""

    def taken(size: int) -> float:
        value, times = made(size), []
        for _ in range(3):
            start = time.process_time()
            read(value)
            times.append(time.process_time() - start)
        return min(times)

    assert taken(1 << 17) < 24 * taken(1 << 14) + 0.02


@pytest.mark.parametrize("layered", [True, False])
@pytest.mark.parametrize("before", [before for before, _ in CASES.values()] + BROKEN, ids=repr)
def test_what_moves_says_the_same_with_its_address_taken_out(before: bytes, layered: bool) -> None:
    """A promotion compares the source's value at the target's address with the source's own."""
    place, site = "http://trueup.invalid", "/var/www/sites/trueup.invalid"
    for new in (NEW, "https://shop.new-name.example:8443/blog"):
        there = rewriting.Rewriter([(OLD, new)], [(OLD_SITE, NEW_SITE)], layered=layered)
        here, target = (
            rewriting.Rewriter([(url, place)], [(directory, site)], layered=layered)
            for url, directory in ((OLD, OLD_SITE), (new, NEW_SITE))
        )
        for value in (before, php([before, {"a": before}]), b"<p>" + b64encode(b'<i x="//old.example.com">' + before)):
            assert target(there(value)) == here(value)


@pytest.mark.parametrize(
    ("value", "then"),
    [
        (b"http://old.example.com", b"http://trueup.invalid"),
        (rb"https:\/\/old.example.com\/a", rb"https:\/\/trueup.invalid\/a".replace(b"https", b"http")),
        (b"ftp:\\/\\/old.example.com", b"ftp:\\/\\/trueup.invalid"),
        (php({"a": [OLD, php(OLD)]}), php({"a": ["http://trueup.invalid", php("http://trueup.invalid")]})),
        (
            rb'{"d":"s:22:\"http:\/\/old.example.com\";"}',
            rb'{"d":"s:22:\"http:\/\/trueup.invalid\";"}',
        ),
        *((one, one) for one in (b64encode(LINK), rb"a\n//old.example.com", b'C:3:"Own":29:{s:22:"' + LINK + b'";}')),
        (b" " + php(OLD), b" " + php(OLD).replace(LINK, b"http://trueup.invalid")),
        (f"{OLD_SITE}/current".encode(), f"{OLD_SITE}/current".encode()),
    ],
)
def test_what_was_digested_before_is_read_as_it_was_then(value: bytes, then: bytes) -> None:
    """As commit 503e1c5 read it: the baselines of copies from before say that."""
    assert rewriting.Rewriter([(OLD, "http://trueup.invalid")], layered=False)(value) == then


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


@pytest.mark.parametrize("url", ["http:///x", "http://:80", "http://", "http:", "x", "ftp://old.example.com"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """A site says itself what its address is."""
    with pytest.raises(load("environment.run").Failure, match="no address"):
        rewriting.Rewriter([(url, NEW)])


@pytest.mark.parametrize("host", ["a", "ab", "abc", "abcd"])
def test_a_short_name(host: str) -> None:
    value = f"a abcd http://{host}/x ".encode() + b64encode(f"http://{host}".encode())
    assert rewrite(value, (f"http://{host}", NEW)).startswith(f"a abcd {NEW}/x ".encode())


@given(st.binary())
def test_values_without_the_address_stay(value: bytes) -> None:
    assert rewrite(value) == value
