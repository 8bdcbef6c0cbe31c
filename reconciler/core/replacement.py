"""A text that is replaced in an environment's tables: what makes no sense, or would change what nobody meant."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from reconciler.core.observed import Count
from reconciler.core.visible import visible

SHORTEST, LONGEST, MOST_TABLES = 2, 1000, 50
_SPACES = " \u00a0"
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_ANY = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]"
TEXT_PATTERN = f"^{_ANY}*$"
SEARCH_PATTERN = rf"^{_ANY}*[^\x00-\x20\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]{_ANY}*$"
"""The same as far as a schema can say it."""
TableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_$-]{1,64}$")]
TableGroup = Literal["content", "comments", "users", "settings", "commerce"]


class Replacement(BaseModel):
    """What is replaced by what, and where: without tables and groups, in all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    search: str
    replace: str
    tables: tuple[TableName, ...] = ()
    groups: tuple[TableGroup, ...] = ()
    guid: bool = False


_Shown = Annotated[str, StringConstraints(max_length=1_024), AfterValidator(lambda text: visible(text, 200))]


class Example(BaseModel):
    """One value: what stands around the first difference, before and after."""

    column: _Shown
    before: _Shown
    after: _Shown


class ReplacedTable(BaseModel):
    """How many values of a table change, and some of them."""

    table: _Shown
    count: Count
    examples: Annotated[tuple[Example, ...], Field(max_length=10)] = ()


class Left(BaseModel):
    """Values that have the text in them and stay as they are; ``example`` is empty where it would show a secret."""

    table: _Shown
    column: _Shown
    reason: _Shown
    count: Count
    example: _Shown


class Replaced(BaseModel):
    """What a search-replace changed or would change, as a node tells it, the most frequent first."""

    count: Count
    tables: Annotated[tuple[ReplacedTable, ...], Field(max_length=500)]
    left: Annotated[tuple[Left, ...], Field(max_length=100)] = ()
    left_more: Count = 0


def refusal(search: str, replace: str) -> str | None:
    """Why ``search`` cannot be replaced by ``replace``; None where it can. The node asks the same again."""
    if not SHORTEST <= len(search) <= LONGEST or not search.strip(_SPACES):
        return f"The text to look for has {SHORTEST} to {LONGEST} characters, and not spaces alone."
    if len(replace) > LONGEST:
        return f"The new text has {LONGEST} characters at most."
    if _CONTROLS.search(search + replace):
        return "The texts have no line breaks in them, and no other control characters."
    if search == replace:
        return "Both texts are the same. Nothing would change."
    return None
