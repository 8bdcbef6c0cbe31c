"""Single fields changed in a document that a person wrote: every byte that isn't the field's own stays.

The tree says where a value stands; new text is spliced in there. The result is read back and compared before
anybody gets it, so an edit is either exact or refused.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from reconciler.core.errors import Invalid, StoreError
from reconciler.store import emit, removal
from reconciler.store import syntax as yaml
from reconciler.store.syntax import LINE_END as _LINE_END

Tree = dict[str, "Tree | _Leaf"]
"""The changed fields, by their keys."""


class _Leaf(NamedTuple):
    value: object


class _Splice(NamedTuple):
    start: int
    end: int
    text: str


def edit(
    original: bytes | None,
    path: str,
    changes: Mapping[tuple[str, ...], object],
    gone: Iterable[tuple[str, ...]] = (),
) -> bytes:
    """``original`` with the fields at these key paths set; mappings on the way are made where they are missing.

    Fields in ``gone`` are taken out, where they are there.

    Raises:
        Invalid: a key path leads through a value that is no mapping, or a value is none that YAML can say.
        StoreError: the document cannot be read, or cannot be edited without touching the rest of it.
    """
    content = original or b""
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""
    try:
        text = content.removeprefix(mark).decode("utf-8")
        root = yaml.compose(text)
    except UnicodeDecodeError as error:
        raise StoreError(f"{path} is not UTF-8. Correct the document first.") from error
    except yaml.Refused as refused:
        raise StoreError(f"{path}:{refused.line or 1}: {refused.message} Correct the document first.") from refused
    tree = _tree(changes)
    expected = _expected(yaml.data_of(root), tree, path)
    edited = _Edit(text, root).apply(tree) if tree else text
    for keys in sorted(gone):
        edited, expected = removal.without(edited, keys), removal.data_without(expected, keys)
    if not _reads_as(edited, expected):
        raise StoreError(f"{path} is written in a way that cannot be changed in place. Make the change by hand.")
    return mark + edited.encode()


def _tree(changes: Mapping[tuple[str, ...], object]) -> Tree:
    tree: Tree = {}
    for keys, value in changes.items():
        if not keys:
            raise Invalid("A change needs a key path. Name the field.")
        level = tree
        for key in keys[:-1]:
            inner = level.setdefault(key, {})
            if isinstance(inner, _Leaf):
                raise Invalid(f"`{'.'.join(keys)}` lies inside another field of the same change.")
            level = inner
        if keys[-1] in level:
            raise Invalid(f"`{'.'.join(keys)}` lies inside another field of the same change.")
        level[keys[-1]] = _Leaf(value)
    return tree


def _expected(data: object, tree: Tree, path: str) -> dict[str, object]:
    """What the document must read as afterwards."""
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise Invalid(f"{path} has a value where a mapping was expected to set {', '.join(tree)} in.")
    changed = dict(data)
    for key, change in tree.items():
        changed[key] = change.value if isinstance(change, _Leaf) else _expected(data.get(key), change, path)
    return changed


def _plain(tree: Tree | _Leaf) -> object:
    return tree.value if isinstance(tree, _Leaf) else {key: _plain(inner) for key, inner in tree.items()}


def _reads_as(text: str, expected: object) -> bool:
    try:
        return same(yaml.data_of(yaml.compose(text)), expected)
    except yaml.Refused:
        return False


def same(left: object, right: object) -> bool:
    """Whether two values are one value to YAML: 1, 1.0 and true are three."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


class _Edit:
    """The splices that turn one text into another."""

    def __init__(self, text: str, root: yaml.Node | None) -> None:
        self._text = text
        self._root = root
        self._splices: list[_Splice] = []
        ending = _LINE_END.search(text)
        self._newline = ending.group() if ending else "\n"
        self._step = _step_of(root)

    def apply(self, tree: Tree) -> str:
        if isinstance(self._root, yaml.Mapping):
            self._mapping(self._root, tree)
        else:
            self._append(tree)
        text = self._text
        for splice in sorted(self._splices, reverse=True):
            text = text[: splice.start] + splice.text + text[splice.end :]
        return text

    def _append(self, tree: Tree) -> None:
        lines = emit.block_lines(_as_mapping(tree), 0, self._step)
        gap = self._newline if self._text and not _LINE_END.search(self._text[-1]) else ""
        text = gap + "".join(line + self._newline for line in lines)
        start = end = len(self._text)
        if isinstance(self._root, yaml.Scalar):
            start, end = (self._root.start, self._root.end) if self._root.end > self._root.start else (start, end)
        self._splices.append(_Splice(start, end, text))

    def _mapping(self, node: yaml.Mapping, tree: Tree) -> None:
        missing = {key: _plain(change) for key, change in tree.items() if key not in node.entries}
        for key, change in tree.items():
            if key in node.entries:
                self._entry(node, key, change)
        if missing and node.flow:
            self._insert_in_flow(node, missing)
        elif missing:
            self._insert_lines(node.end, emit.block_lines(missing, node.column, self._step))

    def _entry(self, parent: yaml.Mapping, key: str, change: Tree | _Leaf) -> None:
        _, node = parent.entries[key]
        if not isinstance(change, _Leaf):
            if isinstance(node, yaml.Mapping):
                self._mapping(node, change)
            else:
                self._replace(parent, node, _plain(change))
        elif not same(yaml.data_of(node), change.value):
            if isinstance(node, yaml.Mapping) and isinstance(change.value, Mapping) and _grows(node, change.value):
                self._mapping(node, {inner: _Leaf(value) for inner, value in change.value.items()})
            else:
                self._replace(parent, node, change.value)

    def _replace(self, parent: yaml.Mapping, node: yaml.Node, value: object) -> None:
        if not isinstance(node, yaml.Scalar) and not node.flow:
            self._replace_block(parent, node, value)
        elif isinstance(value, Mapping) and value and not parent.flow and isinstance(node, yaml.Scalar):
            self._inline(node, "")
            self._insert_lines(node.end, emit.block_lines(value, parent.column + self._step, self._step))
        elif isinstance(value, Mapping | list | tuple):
            self._inline(node, emit.flow_text(value))
        else:
            self._inline(node, emit.scalar_text(value, _chosen_style(node, flow=parent.flow), flow=parent.flow))

    def _inline(self, node: yaml.Node, text: str) -> None:
        """Puts ``text`` where the value stands, on the line of its key."""
        start, end = node.start, node.end
        if isinstance(node, yaml.Scalar) and node.style in {"|", ">"}:
            end = start + len(self._text[start:end].rstrip())
        if text and start == end:
            text = f" {text}" if self._text[:start].endswith(":") else f": {text}"
        if not text:
            start = len(self._text[:start].rstrip(" "))
        self._splices.append(_Splice(start, end, text))

    def _replace_block(self, parent: yaml.Mapping, node: yaml.Sequence | yaml.Mapping, value: object) -> None:
        """A block collection's lines give way to new ones; what stood between them goes with them."""
        start = self._line_start(node.start)
        end = self._line_end(node.end) if not self._at_line_start(node.end) else node.end
        if isinstance(value, list | tuple) and value:
            lines = emit.item_lines(value, node.column, self._step)
        elif isinstance(value, Mapping) and value:
            lines = emit.block_lines(value, max(node.column, parent.column + 1), self._step)
        else:
            lines = [" " * (parent.column + self._step) + emit.flow_text(value)]
        tail = self._newline if self._at_line_start(node.end) else ""
        self._splices.append(_Splice(start, end, self._newline.join(lines) + tail))

    def _insert_in_flow(self, node: yaml.Mapping, missing: Mapping[str, object]) -> None:
        inside = emit.flow_text(missing)[1:-1]
        if not node.entries:
            self._splices.append(_Splice(node.start + 1, node.start + 1, inside))
            return
        end = next(reversed(node.entries.values()))[1].end
        self._splices.append(_Splice(end, end, f", {inside}"))

    def _insert_lines(self, after: int, lines: list[str]) -> None:
        """New lines behind the line on which ``after`` stands."""
        if self._at_line_start(after):
            self._splices.append(_Splice(after, after, "".join(line + self._newline for line in lines)))
            return
        position = self._line_end(after)
        self._splices.append(_Splice(position, position, "".join(self._newline + line for line in lines)))

    def _line_end(self, position: int) -> int:
        ending = _LINE_END.search(self._text, position)
        return ending.start() if ending else len(self._text)

    def _line_start(self, position: int) -> int:
        return max((match.end() for match in _LINE_END.finditer(self._text, 0, position)), default=0)

    def _at_line_start(self, position: int) -> bool:
        return position > 0 and bool(_LINE_END.fullmatch(self._text[position - 1]))


def _as_mapping(tree: Tree) -> dict[str, object]:
    return {key: _plain(change) for key, change in tree.items()}


def _grows(node: yaml.Mapping, value: Mapping[str, object]) -> bool:
    """Whether the new mapping keeps every key of the old, so that each can be set where it stands."""
    return bool(value) and node.entries.keys() <= value.keys()


def _step_of(root: yaml.Node | None) -> int:
    """By how many columns the document indents."""
    waiting = [root]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, yaml.Mapping) and not node.flow:
            for _, value in node.entries.values():
                if isinstance(value, yaml.Mapping) and not value.flow and value.column > node.column:
                    return value.column - node.column
                waiting.append(value)
        elif isinstance(node, yaml.Sequence):
            waiting += node.items
    return 2


def _chosen_style(node: yaml.Node, *, flow: bool) -> str:
    """Its quotes, where somebody chose them: a value that needed them says nothing about the next one."""
    if isinstance(node, yaml.Scalar) and isinstance(node.value, str) and emit.is_plain(node.value, flow=flow):
        return node.style
    return ""
