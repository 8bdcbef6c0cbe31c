"""YAML text as a tree that knows where each of its parts stands. It knows nothing of documents' meaning.

libyaml (through ruamel.yaml) reads the text; plain scalars are resolved by YAML 1.2's core schema, less what JSON
cannot say: ``.inf``, ``.nan`` and times stay text. What a desired-state document has no need for is refused with
its line: anchors, aliases, merge keys, tags, directives, keys that are no text, a second document, deep nesting.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from ruamel.yaml import events
from ruamel.yaml.cyaml import CParser  # type: ignore[attr-defined]
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

Value = str | int | float | bool | None | list["Value"] | dict[str, "Value"]

DEEPEST = 32
"""Levels of nesting that a document may have."""

LINE_END = re.compile(r"\r\n|[\r\n\x85\u2028\u2029]")

_INTEGER = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_LONGEST_NUMBER = 40


class Refused(Exception):
    """The text is no document of ours; ``line`` and ``column`` count from 1."""

    def __init__(self, line: int | None, message: str, column: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.column = column
        self.message = message


@dataclass(slots=True, eq=False)
class Scalar:
    value: str | int | float | bool | None
    start: int
    """Offset in characters of the first character."""
    end: int
    line: int
    column: int
    style: str
    """One of ``"``, ``'``, ``|``, ``>``, or empty for plain."""


@dataclass(slots=True, eq=False)
class Sequence:
    items: list[Node]
    start: int
    end: int
    line: int
    column: int
    flow: bool


@dataclass(slots=True, eq=False)
class Mapping:
    entries: dict[str, tuple[Scalar, Node]]
    start: int
    end: int
    line: int
    column: int
    flow: bool


Node = Scalar | Sequence | Mapping


def compose(text: str) -> Node | None:
    """The tree of the one document in ``text``; None when there is none.

    Raises:
        Refused: the text isn't YAML, or uses what documents have no need for.
    """
    try:
        return _Composer(text).document()
    except MarkedYAMLError as error:
        raise Refused(*_noticed(error, text)) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else None
        raise Refused(line, "not YAML: it contains a control character. Remove it.") from error


def _noticed(error: MarkedYAMLError, text: str) -> tuple[int | None, str, int | None]:
    mark, message = error.problem_mark or error.context_mark, f"not YAML: {_problem(error)}."
    if mark is None:
        return None, message, None
    # What is never closed is noticed behind the last line.
    last = len(text.rstrip().splitlines())
    return (mark.line + 1, message, mark.column + 1) if mark.line < last else (last, message, None)


def _problem(error: MarkedYAMLError) -> str:
    return ", ".join(str(part) for part in (error.problem, error.context) if part)


def data_of(node: Node | None) -> Value:
    """The tree as plain data."""
    match node:
        case None:
            return None
        case Scalar():
            return node.value
        case Sequence():
            return [data_of(item) for item in node.items]
        case Mapping():
            return {key: data_of(value) for key, (_, value) in node.entries.items()}


def data_in(text: str) -> Value:
    """What ``data_of(compose(text))`` gives, in less than half the time: it does not know where anything stands.

    Raises:
        Refused: the text isn't YAML, or uses what documents have no need for.
    """
    try:
        return _one_document(CParser(text).get_event)
    except (_Unusual, MarkedYAMLError, ReaderError):
        # It has the words for what is wrong.
        return data_of(compose(text))


class _Unusual(Exception):
    """Something that documents of ours hardly ever hold."""


def _one_document(next_event: Callable[[], Any]) -> Value:
    if type(next_event()) is not _STREAM:
        raise _Unusual
    start = next_event()
    if type(start) is not _DOCUMENT or start.version or start.tags:
        raise _Unusual
    data = _plain_data(next_event)
    if type(next_event()) is not _STREAM_END:
        raise _Unusual
    return data


def _plain_data(next_event: Callable[[], Any]) -> Value:
    """One loop with as few calls as can be, because whole fleets go through it."""
    top: list[Value] = []
    inside: Any = top
    outer: list[Any] = []
    in_mapping, key = False, None
    while (kind := type(event := next_event())) is not _DOCUMENT_END:
        if kind is _MAPPING_END or kind is _SEQUENCE_END:
            inside = outer.pop()
            in_mapping = type(inside) is dict
            continue
        if kind is _ALIAS or event.anchor or event.ctag is not None:
            raise _Unusual
        if kind is _SCALAR:
            value = event.value if event.style else resolve(event.value)
            if in_mapping and key is None:
                if type(value) is not str or value in inside or value == "<<":
                    raise _Unusual
                key = value
                continue
        else:
            value = {} if kind is _MAPPING else []
        if not in_mapping:
            inside.append(value)
        elif key is None:
            raise _Unusual
        else:
            inside[key], key = value, None
        if kind is not _SCALAR:
            if len(outer) == DEEPEST:
                raise _Unusual
            outer.append(inside)
            inside, in_mapping = value, kind is _MAPPING
    return top[0]


_STREAM, _STREAM_END = events.StreamStartEvent, events.StreamEndEvent
_DOCUMENT, _DOCUMENT_END = events.DocumentStartEvent, events.DocumentEndEvent
_MAPPING, _MAPPING_END = events.MappingStartEvent, events.MappingEndEvent
_SEQUENCE_END, _SCALAR, _ALIAS = events.SequenceEndEvent, events.ScalarEvent, events.AliasEvent


def resolve(text: str) -> str | int | float | bool | None:
    """What a plain scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "-+.0123456789" or len(text) > _LONGEST_NUMBER:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OTHER_BASE.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Composer:
    """Builds the tree from libyaml's events with a stack of its own, so that depth costs nothing."""

    def __init__(self, text: str) -> None:
        self._parser = CParser(text)
        self._root: Node | None = None
        self._open: list[Sequence | Mapping] = []
        self._keys: list[Scalar | None] = []

    def document(self) -> Node | None:
        documents = 0
        while not isinstance(event := self._parser.get_event(), events.StreamEndEvent):
            if isinstance(event, events.DocumentStartEvent):
                documents += 1
                _refuse_document(event, documents)
            elif not isinstance(event, events.StreamStartEvent | events.DocumentEndEvent):
                self._take(event)
        return self._root

    def _take(self, event: Any) -> None:
        if isinstance(event, events.CollectionEndEvent):
            self._close(event)
            return
        _refuse_node(event)
        if isinstance(event, events.ScalarEvent):
            self._place(_scalar(event))
            return
        node = _collection(event)
        self._place(node)
        if len(self._open) == DEEPEST:
            raise Refused(node.line, f"nested deeper than {DEEPEST} levels. Flatten it.")
        self._open.append(node)
        self._keys.append(None)

    def _close(self, event: Any) -> None:
        node = self._open.pop()
        self._keys.pop()
        # A block collection's own end mark stands behind the comments that follow it.
        node.end = event.end_mark.index if node.flow else _last_end(node)

    def _place(self, node: Node) -> None:
        if not self._open:
            self._root = node
        elif isinstance(parent := self._open[-1], Sequence):
            parent.items.append(node)
        elif (key := self._keys[-1]) is None:
            self._keys[-1] = _key(node, parent)
        else:
            parent.entries[cast(str, key.value)] = (key, node)
            self._keys[-1] = None


def _last_end(node: Sequence | Mapping) -> int:
    if isinstance(node, Sequence):
        return node.items[-1].end if node.items else node.start + 1
    return next(reversed(node.entries.values()))[1].end if node.entries else node.start + 1


def _scalar(event: Any) -> Scalar:
    mark = event.start_mark
    style = event.style or ""
    value = event.value if style else resolve(event.value)
    return Scalar(value, mark.index, event.end_mark.index, mark.line + 1, mark.column, style)


def _collection(event: Any) -> Sequence | Mapping:
    mark, flow = event.start_mark, bool(event.flow_style)
    if isinstance(event, events.SequenceStartEvent):
        return Sequence([], mark.index, mark.index, mark.line + 1, mark.column, flow)
    return Mapping({}, mark.index, mark.index, mark.line + 1, mark.column, flow)


def _key(node: Node, parent: Mapping) -> Scalar:
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        raise Refused(node.line, "a key that is no text. Put it in quotes, or correct it.", node.column + 1)
    if node.value == "<<" and not node.style:
        raise Refused(node.line, "a merge key (`<<`) is not accepted. Write its fields out.", node.column + 1)
    if node.value in parent.entries:
        first = parent.entries[node.value][0].line
        told = f"key `{node.value}` is here twice, first on line {first}. Remove one."
        raise Refused(node.line, told, node.column + 1)
    return node


def _refuse_document(event: Any, count: int) -> None:
    line = event.start_mark.line + 1
    if count > 1:
        raise Refused(line, "a second document begins here. One file holds one document: split it.")
    if event.version or event.tags:
        raise Refused(line, "a `%` directive is not accepted. Remove it.")


def _refuse_node(event: Any) -> None:
    line, column = event.start_mark.line + 1, event.start_mark.column + 1
    if isinstance(event, events.AliasEvent):
        raise Refused(line, f"an alias (`*{event.anchor}`) is not accepted. Write the value out.", column)
    if event.anchor:
        raise Refused(line, f"an anchor (`&{event.anchor}`) is not accepted. Remove it.", column)
    if event.tag:
        raise Refused(line, f"a tag (`{event.tag}`) is not accepted. Remove it.", column)
