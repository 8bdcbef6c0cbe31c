"""What of a promotion somebody chooses, as requests and documents say it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import StringConstraints

GROUPS = "code, options, links, taxes, shipping, attributes, orders"
SELECTOR = (
    r"^(group:(code|options|links|taxes|shipping|attributes|orders)|option:[!-~]{1,191}"
    r"|plugin:[A-Za-z0-9][A-Za-z0-9._-]{0,99})$"
)
Selector = Annotated[str, StringConstraints(pattern=SELECTOR)]
MOST_SELECTORS = 100
CODE = "group:code"


def brings_code(include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether the version of WordPress moves, and all code that is not chosen otherwise."""
    return CODE not in exclude and (not include or CODE in include)


def refusal(include: Sequence[str], exclude: Sequence[str]) -> str | None:
    """Why the choice makes no sense; None where it does."""
    both = sorted({*include} & {*exclude})
    return f"{both[0]} is both included and excluded. Say one of them." if both else None
