"""Lists part by part: ``limit``, ``cursor``, and the next part's address in the ``Link`` header. Bodies stay lists."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response

from reconciler.core.errors import Invalid

T = TypeVar("T")
Rank = tuple[str, ...]
LARGEST = 200

Limit = Annotated[int | None, Query(ge=1, le=LARGEST)]
Cursor = Annotated[str | None, Query(max_length=1000, json_schema_extra={"format": "cursor"})]


@dataclass(frozen=True)
class Part:
    """Which part of a list is asked for. Without a limit, and without a cursor: what the list gives by itself."""

    request: Request
    limit: int | None
    cursor: str | None

    def of(
        self, items: Iterable[T], rank: Callable[[T], Rank], *, newest_first: bool = False
    ) -> tuple[list[T], str | None]:
        """The part of ``items``, and the cursor of the next one; None: this is the last.

        A cursor is the rank of the last item that was given: what comes and goes meanwhile moves nothing else.
        """
        ordered = sorted(items, key=rank, reverse=newest_first)
        if self.cursor is not None:
            after = _read(self.cursor)
            ordered = [one for one in ordered if (rank(one) < after if newest_first else rank(one) > after)]
        if self.limit is None or len(ordered) <= self.limit:
            return ordered, None
        return ordered[: self.limit], _cursor(rank(ordered[self.limit - 1]))

    def link(self, response: Response, cursor: str | None) -> None:
        """Say in ``response`` where the next part is."""
        if cursor is None:
            return
        kept = [(name, value) for name, value in self.request.query_params.multi_items() if name != "cursor"]
        query = urlencode([*kept, ("cursor", cursor)])
        response.headers["Link"] = f'<{self.request.url.path}?{query}>; rel="next"'


def _part(request: Request, limit: Limit = None, cursor: Cursor = None) -> Part:
    return Part(request, limit, cursor)


Asked = Annotated[Part, Depends(_part)]


def _cursor(rank: Rank) -> str:
    return base64.urlsafe_b64encode(json.dumps(rank).encode()).decode()


def _read(cursor: str) -> Rank:
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        if isinstance(found, list) and all(isinstance(part, str) for part in found):
            return tuple(found)
    except (ValueError, binascii.Error):
        pass
    raise Invalid("The cursor is not one that this list gave. Leave it out to begin anew.")
