"""Single fields changed in documents that people wrote: every other byte stays."""

from __future__ import annotations

from itertools import zip_longest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.entries import Document
from reconciler.core.errors import Invalid, StoreError
from reconciler.store import documents
from reconciler.store.documents import edit
from reconciler.store.edits import same

from .conftest import ENVIRONMENT
from .test_documents import VALUES


def changed_lines(before: bytes, after: bytes) -> list[tuple[bytes | None, bytes | None]]:
    pairs = zip_longest(before.split(b"\n"), after.split(b"\n"))
    return [(old, new) for old, new in pairs if old != new]


def data(content: bytes) -> object:
    document = documents.read("a.yaml", content)
    assert isinstance(document, Document), content
    return document.data


def test_one_flag_changes_one_line() -> None:
    after = edit(ENVIRONMENT, "a.yaml", {("spec", "cache", "fastcgi"): False})
    assert changed_lines(ENVIRONMENT, after) == [(b"    fastcgi: true    # really", b"    fastcgi: false    # really")]


def test_quotes_that_a_value_needed_go_with_it() -> None:
    there, gone = b"release:\n  revision: ec51\n", b'release:\n  revision: "4f00"\n'
    assert edit(there, "a.yaml", {("release", "revision"): "4f00"}) == gone
    assert edit(gone, "a.yaml", {("release", "revision"): "ec51"}) == there


def test_quotes_stay_as_they_were() -> None:
    after = edit(ENVIRONMENT, "a.yaml", {("metadata", "name"): "Ada's", ("spec", "wordpress", "version"): "7.2"})
    assert changed_lines(ENVIRONMENT, after) == [
        (b"  name: 'Production'", b"  name: 'Ada''s'"),
        (
            b'  wordpress: {version: "7.1.1"}   # pinned until the shop plugin follows',
            b'  wordpress: {version: "7.2"}   # pinned until the shop plugin follows',
        ),
    ]


def test_a_new_field_goes_behind_its_siblings() -> None:
    after = edit(
        ENVIRONMENT,
        "a.yaml",
        {
            ("spec", "cache", "extra"): 1,
            ("spec", "php", "max_children"): 4,
            ("spec", "wordpress", "locale"): "de_DE",
            ("metadata", "id"): "7f1c6f0e-51ad-5f0a-9c39-3a7d1d5c2b11",
        },
    )
    assert after == ENVIRONMENT.replace(
        b"  name: 'Production'\n", b"  name: 'Production'\n  id: 7f1c6f0e-51ad-5f0a-9c39-3a7d1d5c2b11\n"
    ).replace(b'"7.1.1"}', b'"7.1.1", locale: de_DE}').replace(
        b"    redis: true\n", b"    redis: true\n    extra: 1\n  php:\n    max_children: 4\n"
    )


def test_what_is_so_already_changes_nothing() -> None:
    changes = {("spec", "cache", "fastcgi"): True, ("spec", "wordpress"): {"version": "7.1.1"}}
    assert edit(ENVIRONMENT, "a.yaml", changes) == ENVIRONMENT


def test_without_an_original_the_fields_make_the_document() -> None:
    content = edit(None, "a.yaml", {("kind",): "Site", ("spec", "a"): [1, {"b": 2}]})
    assert content == b"kind: Site\nspec:\n  a:\n    - 1\n    - b: 2\n"


_AWKWARD = {
    "windows": ENVIRONMENT.replace(b"\n", b"\r\n"),
    "byte order mark": b"\xef\xbb\xbf" + ENVIRONMENT,
    "no last line end": ENVIRONMENT.rstrip().removesuffix(b"# the end").rstrip(),
    "trailing white space": ENVIRONMENT.replace(b"\n", b"  \n"),
    "wide": b"kind: Environment\nspec:\n        cache:\n                fastcgi: true\n                redis: true\n",
    "narrow": b"spec:\n cache:\n  fastcgi: true\n  redis: true\n",
    "flow": b'{"kind": "Environment", "spec": {"cache": {"fastcgi": true, "redis": true,}}} # json\n',
    "long flow": b"spec: {\n  cache: {\n    fastcgi: true, # a\n    redis: true # b\n  }\n}\n",
    "start and end": b"---\nspec:\n  cache:\n    fastcgi:   true\n    redis: true\n...\n# after\n",
    "quoted keys": b"'spec':\n  \"cache\":\n    'fastcgi': true\n    redis : true\n",
    "question marks": b"? spec\n:\n  cache:\n    ? fastcgi\n    : true\n    redis: true\n",
    "literal last": b"spec:\n  cache:\n    redis: true\n    fastcgi: |\n      x\n\n      y\n\n# tail\n",
    "kept blank lines": b"spec:\n  cache:\n    redis: true\n    fastcgi: |+\n      x\n\n\n",
    "folded": b"spec:\n  cache:\n    fastcgi: >-\n      a\n      b\n    redis: true\n",
    "many lines plain": b"spec:\n  cache:\n    fastcgi: a\n      b\n      c # d\n    redis: true\n",
    "many lines quoted": b'spec:\n  cache:\n    fastcgi: "a\n      b"   # d\n    redis: true\n',
    "nothing there": b"spec:\n  cache:\n    fastcgi:   # later\n    redis:\n",
    "unicode": "# Größe 😀\nspec:\n  cache: {naïve: 😀, fastcgi: true, redis: true}  # ü\n".encode(),
    "after a list": b"spec:\n  cache:\n    redis: true\n    fastcgi:\n    - a\n    -   b\n    # c\n\n# d\n",
    "unicode line ends": "a: 'x\u2028  y'\nspec:\n  cache:\n    fastcgi: true\n    redis: 1\n".encode(),
    "old mac": b"spec:\r  cache:\r    fastcgi: true\r    redis: true\r",
    "empty": b"",
    "comment only": b"# nothing yet",
    "null": b"---\n",
    "null in the way": b"spec:\n  cache: ~   # none\n  node: a\n",
    "empty mapping": b"spec: {}\n",
    "empty cache": b"spec: {cache: {}}\n",
    "shorthand": b"spec: {cache: {fastcgi, redis: }}\n",
}


@pytest.mark.parametrize("name", _AWKWARD)
@pytest.mark.parametrize("value", [False, "a: #b", None, 7, ["x", 1], {"a": {"b": []}}, {}, [], "two\nlines"])
def test_awkward_documents(name: str, value: object) -> None:
    before = _AWKWARD[name]
    after = edit(before, "a.yaml", {("spec", "cache", "fastcgi"): value, ("spec", "cache", "new"): value})
    found = data(after)
    assert isinstance(found, dict)
    assert same(found["spec"]["cache"]["fastcgi"], value)
    assert same(found["spec"]["cache"]["new"], value)
    for comment in (b"# a", b"# b", b"# d", b"# json", b"# tail", b"# after", b"# none", b"# later"):
        assert (comment in before) == (comment in after)
    if b"\r\n" in before:
        assert after.count(b"\n") == after.count(b"\r\n")


@pytest.mark.parametrize(
    "name", ["windows", "byte order mark", "trailing white space", "wide", "narrow", "flow", "long flow",
             "start and end", "quoted keys", "question marks", "unicode"],
)  # fmt: skip
def test_a_flag_in_an_awkward_document_changes_its_own_bytes_only(name: str) -> None:
    before = _AWKWARD[name]
    after = edit(before, "a.yaml", {("spec", "cache", "fastcgi"): False})
    at = before.index(b"true", before.index(b"fastcgi"))
    assert after == before[:at] + b"false" + before[at + 4 :]


@pytest.mark.parametrize("name", _AWKWARD)
@pytest.mark.parametrize("value", ["text", "a: #b", {"a": {"b": [1]}}, [{"a": "b"}, "c"], None])
def test_a_field_that_was_set_and_goes_leaves_what_was_there(name: str, value: object) -> None:
    before, key = _AWKWARD[name], ("spec", "new")
    with_spec = edit(before, "a.yaml", {("spec", "other"): 1})
    there = edit(with_spec, "a.yaml", {key: value})
    assert there != with_spec
    assert edit(there, "a.yaml", {}, [key]) == with_spec


def test_fields_that_go_take_their_lines_and_no_others() -> None:
    gone = [("spec", "wordpress"), ("spec", "cache", "fastcgi"), ("spec", "release"), ("nothing", "there")]
    after = edit(ENVIRONMENT, "a.yaml", {("metadata", "name"): "Ada"}, gone)
    assert after == ENVIRONMENT.replace(b"'Production'", b"'Ada'").replace(
        b'  wordpress: {version: "7.1.1"}   # pinned until the shop plugin follows\n', b""
    ).replace(b"    fastcgi: true    # really\n", b"")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"spec: {a: 1, b: 2, c: 3}\n", b"spec: {c: 3}\n"),
        (b"spec: {a: 1, b: [2]} # x\n", b"spec: {} # x\n"),
        (b"spec:\n  a: 1\n  b: |\n    x\n\n# y\n", b"spec:\n  {}\n\n# y\n"),
        (b"spec:\n  c: 3\n  a: 1\n  b: 2", b"spec:\n  c: 3"),
    ],
)
def test_several_fields_go(before: bytes, after: bytes) -> None:
    assert edit(before, "a.yaml", {}, [("spec", "a"), ("spec", "b")]) == after


def test_a_field_that_cannot_go_alone_is_refused() -> None:
    with pytest.raises(StoreError, match="by hand"):
        edit(b"? spec\n: ? a\n  : 1\n  ? b\n  : 2\n", "a.yaml", {}, [("spec", "a")])


_WORD = st.from_regex(r"[a-z]{1,6}", fullmatch=True)
_GAP = st.sampled_from(["", "\n", "# note: x\n", "    # far\n", "\n\n# {y\n"])
_TAIL = st.sampled_from(["", "   # why", " ", "\t# tab"])
_WRITTEN = st.sampled_from(["true", "1", "text", "'it''s'", '"a\\tb"', "~", "a b c", "[1, 2]", "{x: 1}", "-1.5", "'#'"])


@st.composite
def hand_written(draw: st.DrawFn) -> tuple[str, list[tuple[str, ...]], str]:
    """A document with comments, gaps and odd indentation; the key paths of its values; its line end."""
    lines: list[str] = []
    paths: list[tuple[str, ...]] = []

    def block(level: int, indent: int, prefix: tuple[str, ...]) -> None:
        for key in draw(st.lists(_WORD, min_size=1, max_size=3, unique=True)):
            lines.append(draw(_GAP))
            if level < 3 and draw(st.booleans()):
                lines.append(f"{' ' * indent}{key}:{draw(_TAIL)}\n")
                block(level + 1, indent + draw(st.integers(1, 5)), (*prefix, key))
            else:
                lines.append(
                    f"{' ' * indent}{key}:{draw(st.sampled_from([' ', '   ']))}{draw(_WRITTEN)}{draw(_TAIL)}\n"
                )
                paths.append((*prefix, key))

    block(0, 0, ())
    return "".join(lines) + draw(_GAP), paths, draw(st.sampled_from(["\n", "\r\n"]))


_SINGLE_LINE = st.booleans() | st.integers(-999, 999) | st.text(max_size=12).filter(str.isprintable) | st.none()


@settings(deadline=None)
@given(hand_written(), st.data())
def test_one_scalar_changes_only_its_own_line(
    written: tuple[str, list[tuple[str, ...]], str], draw: st.DataObject
) -> None:
    text, paths, newline = written
    before = text.replace("\n", newline).encode()
    path = draw.draw(st.sampled_from(paths))
    value = draw.draw(_SINGLE_LINE)
    document = documents.read("a.yaml", before)
    assert isinstance(document, Document), before
    after = edit(before, "a.yaml", {path: value})
    old, new = before.split(b"\n"), after.split(b"\n")
    assert len(old) == len(new)
    different = [number for number, (left, right) in enumerate(zip(old, new, strict=True), 1) if left != right]
    place = document.place_of(path)
    assert different in ([], [place and place.line])
    found = data(after)
    for key in path:
        assert isinstance(found, dict)
        found = found[key]
    assert same(found, value)


@settings(deadline=None)
@given(hand_written(), st.data())
def test_any_values_at_any_places_read_back(
    written: tuple[str, list[tuple[str, ...]], str], draw: st.DataObject
) -> None:
    text, paths, newline = written
    before = text.replace("\n", newline).encode()
    roots = st.sampled_from(sorted({path[:n] for path in paths for n in range(len(path))}))
    places = st.sampled_from(paths) | st.tuples(roots, st.text("new", min_size=7, max_size=8)).map(
        lambda p: (*p[0], p[1])
    )
    path, value = draw.draw(places), draw.draw(VALUES)
    after = edit(before, "a.yaml", {path: value})
    expected = data(before)
    level = expected
    for key in path[:-1]:
        assert isinstance(level, dict)
        level = level[key]
    assert isinstance(level, dict)
    level[path[-1]] = value
    assert same(data(after), expected)


@pytest.mark.parametrize(
    "word", ["https://git.example.com/shop.git#main", "git@example.com:shop.git", "A:0", "10.0.0.1:80"]
)
@pytest.mark.parametrize(
    ("before", "path"),
    [
        (b"a: {b: x, c: 1}\n", ("a", "b")),
        (b"a: {b: x}\n", ("a", "new")),
        (b"a: {b: {c: 'x'}}\n", ("a", "b", "c")),
        (b"a: x\n", ("a",)),
    ],
)
def test_a_colon_between_braces(before: bytes, path: tuple[str, ...], word: str) -> None:
    """There, no reader takes a bare word with a colon."""
    for value in (word, [word], {word: [word]}):
        found = data(edit(before, "a.yaml", {path: value}))
        for key in path:
            assert isinstance(found, dict)
            found = found[key]
        assert found == value


def test_quotes_that_a_colon_needed_do_not_stay() -> None:
    before, path = b"a: {b: x, c: 1}\n", ("a", "b")
    assert edit(edit(before, "a.yaml", {path: "https://example.com"}), "a.yaml", {path: "x"}) == before


def test_a_mapping_grows_in_place_and_keeps_its_comments() -> None:
    after = edit(ENVIRONMENT, "a.yaml", {("spec", "cache"): {"fastcgi": False, "redis": True, "more": 1}})
    assert after == ENVIRONMENT.replace(b"true    # really", b"false    # really").replace(
        b"redis: true\n", b"redis: true\n    more: 1\n"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {(): 1},
        {("spec",): {}, ("spec", "cache"): {}},
        {("spec", "cache"): {}, ("spec",): {}},
        {("spec", "node", "deeper"): 1},
        {("spec", "cache", "fastcgi"): object()},
        {("spec", "cache", "fastcgi"): "\ud800"},
    ],
)
def test_changes_that_mean_nothing_are_refused(changes: dict[tuple[str, ...], object]) -> None:
    with pytest.raises(Invalid):
        edit(ENVIRONMENT, "a.yaml", changes)


@pytest.mark.parametrize("content", [b"a: &x 1\n", b"a: [", b"\xff"])
def test_what_cannot_be_read_is_not_edited(content: bytes) -> None:
    with pytest.raises(StoreError, match="Correct the document first"):
        edit(content, "a.yaml", {("a",): 1})


def test_a_list_at_the_top_is_not_edited() -> None:
    with pytest.raises(Invalid):
        edit(b"- a\n", "a.yaml", {("a",): 1})
