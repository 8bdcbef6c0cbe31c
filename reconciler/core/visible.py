"""Text from outside, for a terminal: what would move a cursor, hide or turn other text round is shown, not obeyed."""

from __future__ import annotations

import unicodedata

_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control and formatting characters (bidirectional and invisible ones among them), separators of lines."""
MORE = "…"


def visible(text: str, most: int | None = None) -> str:
    """``text`` on one line, with ``\\x1b``, ``\\n`` and ``\\u202e`` written out, and cut after ``most`` characters."""
    shown = text if text.isprintable() else "".join(map(_shown, text))
    return shown if most is None or len(shown) <= most else f"{shown[: most - 1]}{MORE}"


def visible_lines(text: str) -> str:
    """The same for text whose lines and tabs are ours."""
    return text if text.isprintable() else "".join(one if one in "\n\t" else _shown(one) for one in text)


def visible_json(text: str) -> str:
    """JSON that says the same, with those characters as escapes of its own."""
    if text.isprintable():
        return text
    return "".join(one if one == "\n" or not _is_obeyed(one) else _escaped_json(one) for one in text)


def _shown(one: str) -> str:
    return one.encode("unicode_escape").decode() if _is_obeyed(one) else one


def _is_obeyed(one: str) -> bool:
    return unicodedata.category(one) in _OBEYED


def _escaped_json(one: str) -> str:
    code = ord(one)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
