"""What a node says of a promotion before there is one, in the words of WordPress. Pure.

The texts are a site's own: each is one short line here, whatever it was.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from reconciler.core.observed import Count
from reconciler.core.visible import visible

Kind = Literal[
    "wordpress",
    "plugin",
    "theme",
    "mu_plugin",
    "file",
    "option",
    "link",
    "tax_rate",
    "shipping_zone",
    "attribute",
    "page",
    "post",
    "product",
    "menu",
    "attachment",
    "template",
    "content",
    "term",
    "order",
    "user",
    "comment",
    "table",
]
Verdict = Literal["moves", "stays", "left_behind", "conflicts"]
Reason = Literal[
    "changed_in_source",
    "changed_in_target",
    "changed_in_both",
    "names_other_content",
    "declared",
    "half_of_a_pair",
    "comes_with_plugin",
    "content",
    "orders",
    "unknown_table",
    "only_in_source",
]
BECAUSE: dict[Reason, str] = {
    "changed_in_source": "changed in the source",
    "changed_in_target": "changed in the target",
    "changed_in_both": "changed in both",
    "names_other_content": "names posts or terms that are not the same in the target",
    "declared": "the target's document sets it",
    "half_of_a_pair": "half of a pair, whose other half cannot move",
    "comes_with_plugin": "comes along with a plugin that becomes active",
    "content": "content never moves",
    "orders": "orders, customers and payments never move",
    "unknown_table": "no list knows the table",
    "only_in_source": "the target lacks it; its plugin makes it there",
}
"""The reasons, for people."""
MOST_NAMED = 200
"""Of a verdict."""

_Name = Annotated[str, StringConstraints(max_length=512), AfterValidator(lambda text: visible(text, 120))]
_Word = Annotated[str, StringConstraints(max_length=512), AfterValidator(lambda text: visible(text, 160))]


class Difference(BaseModel):
    """One thing that is not the same on both sides; of orders, users and comments all together, and no name."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: Kind
    reason: Reason
    change: Literal["added", "changed", "removed"]
    name: _Name | None
    type: _Word | None = None
    """A post's type, a term's taxonomy."""
    number: Count | None = None
    """A post's, a term's."""
    count: Count | None = None
    """Of files, of rows, or of people's things."""
    details: Annotated[tuple[_Word, ...], Field(max_length=20)] = ()
    """What of it changed: versions, price, title, …"""


_Counts = Annotated[dict[Kind, Count], Field(max_length=50)]
_Differences = Annotated[tuple[Difference, ...], Field(max_length=MOST_NAMED)]


class Preview(BaseModel):
    """All are counted, by verdict and kind; the first of each kind are named."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    counts: dict[Verdict, _Counts]
    moves: _Differences
    stays: _Differences
    left_behind: _Differences
    conflicts: _Differences
