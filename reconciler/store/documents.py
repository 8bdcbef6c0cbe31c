"""Documents from bytes and to bytes. It knows YAML and nothing of Git, nor of what the fields mean."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from functools import partial

from reconciler.core.entries import Document, Location, Place, Stalled
from reconciler.core.errors import Invalid
from reconciler.store.edits import edit
from reconciler.store.emit import block_lines
from reconciler.store.syntax import Node, Refused, Scalar, Sequence, compose, data_in

__all__ = ["LARGEST", "edit", "read", "render", "schema_reference", "too_large"]

LARGEST = 256 * 1024
"""Bytes that a document may have."""


def read(path: str, content: bytes) -> Document | Stalled:
    """The document at ``path``, or why it isn't one, with the line."""
    if len(content) > LARGEST:
        return too_large(path, len(content))
    try:
        text = _decode(content)
        data = data_in(text)
    except Refused as refused:
        place = Place(refused.line, refused.column) if refused.line else None
        return Stalled(path, place, refused.message)
    return Document(path, data, partial(_place_of, text))


def too_large(path: str, size: int) -> Stalled:
    return Stalled(path, None, f"{size} bytes are too many for a document: {LARGEST} at most.")


def _decode(content: bytes) -> str:
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise Refused(line, f"not UTF-8 at byte {error.start}. Save the file as UTF-8.") from error


def _place_of(text: str, location: Location) -> Place | None:
    """Where it stands, or the nearest around it; composed again, as only errors ask."""
    node = compose(text)
    place = _place(node) if node else None
    for part in location:
        found = _step(node, part)
        if found is None:
            break
        place, node = _place(found[0]), found[1]
    return place


def _place(node: Node) -> Place:
    return Place(node.line, node.column + 1)


def _step(node: Node | None, part: str | int) -> tuple[Node, Node] | None:
    """What names the part, a key or the item itself, and what it holds."""
    if node is None or isinstance(node, Scalar):
        return None
    if isinstance(node, Sequence):
        inside = isinstance(part, int) and 0 <= part < len(node.items)
        return (node.items[int(part)], node.items[int(part)]) if inside else None
    return node.entries.get(str(part))


def schema_reference(path: str, kind: str) -> str:
    """Where an editor finds the schema of a document: ``schemas/<kind>.json`` at the store's top, from ``path``.

    Relative, because editors resolve it from the document's own directory: it holds in every clone, offline, and
    in whatever directory the clone is.
    """
    return "../" * path.count("/") + f"schemas/{kind.lower()}.json"


def render(document: Mapping[str, object], schema: str | None = None) -> bytes:
    """A new document, in the order of its keys; ``schema`` becomes the first line's hint to editors.

    Raises:
        Invalid: it holds something that YAML cannot say, such as a lone surrogate.
    """
    if schema is not None and not re.fullmatch(r"[\w./:~@%+-]+", schema):
        raise Invalid(f"`{schema}` is no schema reference. Give a relative path or a URL.")
    modeline = [f"# yaml-language-server: $schema={schema}"] if schema else []
    lines = [*modeline, *block_lines(document, indent=0, step=2)]
    return "".join(f"{line}\n" for line in lines).encode()
