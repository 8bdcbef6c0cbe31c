"""HTML by construction: whatever isn't made by ``tag`` is text, and escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


class Html(str):
    """Markup that ``tag`` or ``join`` made."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str) -> Html:
    """An element. An attribute's underscores are hyphens; one at the end goes: ``class_``."""
    told = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{told}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Html:
    """Several children, text escaped."""
    return Html("".join(child if isinstance(child, Html) else escape(child) for child in children))
