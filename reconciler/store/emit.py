"""Plain data as YAML text, written so that YAML 1.1 readers see the same values as YAML 1.2 ones."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

from reconciler.core.errors import Invalid
from reconciler.store.syntax import resolve

# A word that neither version of YAML reads as anything but text.
_PLAIN = re.compile(r"[A-Za-z/](?:[A-Za-z0-9 ._/@+()-]|:(?=[^\s:]))*(?<! )")
_UUID_OF_DIGITS = re.compile(r"[0-9][0-9a-f]{7}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_WORDS_OF_1_1 = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])
_UNPRINTABLE = re.compile("[^\\x20-\\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|[\u2028\u2029]")


def scalar_text(value: object, style: str = "", *, flow: bool = False) -> str:
    """One scalar on one line, in quotes of ``style`` where it was quoted before and can stay so.

    ``flow``: it stands between brackets or braces.
    """
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return repr(value) if "e" not in repr(value) else f"{value:.17e}"
        case str():
            return _string(value, style, flow=flow)
    raise Invalid(f"A document cannot hold {value!r}. Use text, numbers, true, false, null, lists and mappings.")


def _string(text: str, style: str, *, flow: bool) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Invalid("A document cannot hold text with half a character (a lone surrogate).")
    if style == "'" and not _UNPRINTABLE.search(text):
        return "'" + text.replace("'", "''") + "'"
    if style != '"' and is_plain(text, flow=flow):
        return text
    return _UNPRINTABLE.sub(_escape, json.dumps(text, ensure_ascii=False))


def is_plain(text: str, *, flow: bool = False) -> bool:
    """Whether text needs no quotes, in any version of YAML; with ``flow``, between brackets or braces either."""
    if flow and ":" in text:
        return False
    if _UUID_OF_DIGITS.fullmatch(text):
        return True
    return bool(_PLAIN.fullmatch(text)) and text.lower() not in _WORDS_OF_1_1 and isinstance(resolve(text), str)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def flow_text(value: object) -> str:
    """Any value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key_text(key, flow=True)}: {_in_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "[" + ", ".join(_in_flow(item) for item in value) + "]"
    return scalar_text(value)


def _in_flow(value: object) -> str:
    return flow_text(value) if _is_collection(value) else scalar_text(value, flow=True)


def _is_collection(value: object) -> bool:
    return isinstance(value, Mapping | Sequence) and not isinstance(value, str | bytes)


def key_text(key: object, *, flow: bool = False) -> str:
    if not isinstance(key, str):
        raise Invalid(f"A document's keys are text; {key!r} is not.")
    return scalar_text(key, flow=flow)


def block_lines(document: Mapping[str, object], indent: int, step: int) -> list[str]:
    """A mapping as lines without their ends, each level indented by ``step``."""
    lines: list[str] = []
    for key, value in document.items():
        lines += entry_lines(key, value, indent, step)
    return lines


def entry_lines(key: str, value: object, indent: int, step: int) -> list[str]:
    """``key: value`` as lines: collections that aren't empty in block style."""
    head = f"{' ' * indent}{key_text(key)}:"
    if isinstance(value, Mapping) and value:
        return [head, *block_lines(value, indent + step, step)]
    if isinstance(value, list | tuple) and value:
        return [head, *item_lines(value, indent + step, step)]
    return [f"{head} {flow_text(value)}"]


def item_lines(items: Sequence[object], indent: int, step: int) -> list[str]:
    """A list as lines, each item behind its dash."""
    lines: list[str] = []
    for item in items:
        if isinstance(item, Mapping) and item:
            inner = block_lines(item, indent + 2, step)
            lines += [f"{' ' * indent}- {inner[0].lstrip(' ')}", *inner[1:]]
        else:
            lines.append(f"{' ' * indent}- {flow_text(item)}")
    return lines
