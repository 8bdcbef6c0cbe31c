"""Single fields taken out of a document that a person wrote: their lines go with them, and nothing else."""

from __future__ import annotations

from typing import Any

from reconciler.store import syntax as yaml

KeyPath = tuple[str, ...]


def without(text: str, keys: KeyPath) -> str:
    """``text`` without this field; where it isn't there, as it is. The caller reads back what resulted."""
    parent = _parent(yaml.compose(text), keys)
    if parent is None:
        return text
    if parent.flow:
        start, end = _in_flow(parent, keys[-1])
    elif len(parent.entries) == 1:
        # A mapping that has nothing left must still be one.
        start, end = _own(text, parent, keys[-1])
        return f"{text[:start]}{{}}{text[end:]}"
    else:
        start, end = _lines(text, *_own(text, parent, keys[-1]))
    return text[:start] + text[end:]


def data_without(data: Any, keys: KeyPath) -> Any:
    """What the document must read as afterwards."""
    if not isinstance(data, dict) or keys[0] not in data:
        return data
    if len(keys) == 1:
        return {key: value for key, value in data.items() if key != keys[0]}
    return {**data, keys[0]: data_without(data[keys[0]], keys[1:])}


def _parent(node: yaml.Node | None, keys: KeyPath) -> yaml.Mapping | None:
    """The mapping that has the field."""
    for key in keys[:-1]:
        if not isinstance(node, yaml.Mapping) or key not in node.entries:
            return None
        node = node.entries[key][1]
    return node if isinstance(node, yaml.Mapping) and keys[-1] in node.entries else None


def _in_flow(parent: yaml.Mapping, name: str) -> tuple[int, int]:
    """The field with the comma before it; the first one's stands behind it."""
    names, (key, value) = list(parent.entries), parent.entries[name]
    place = names.index(name)
    if place:
        return parent.entries[names[place - 1]][1].end, value.end
    return key.start, parent.entries[names[1]][0].start if len(names) > 1 else value.end


def _own(text: str, parent: yaml.Mapping, name: str) -> tuple[int, int]:
    """Key and value, less the blank lines that a literal's end mark stands behind."""
    key, value = parent.entries[name]
    return key.start, key.start + len(text[key.start : max(key.end, value.end)].rstrip())


def _lines(text: str, start: int, end: int) -> tuple[int, int]:
    """All of these lines, with the line end before them; a key that shares its line with a question mark keeps it."""
    before = list(yaml.LINE_END.finditer(text, 0, start))
    began = before[-1].end() if before else 0
    if text[began:start].strip():
        return start, start
    following = yaml.LINE_END.search(text, end)
    if before:
        return before[-1].start(), following.start() if following else len(text)
    return 0, following.end() if following else len(text)
