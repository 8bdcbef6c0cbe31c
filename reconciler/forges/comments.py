"""One comment of our own on a request, found again by the line that it begins with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from reconciler.forges.client import Client
from reconciler.forges.model import ForgeError

PAGE = 50
_MOST_PAGES = 40
_NOT_OURS = frozenset({403, 404})


def say(client: Client, listed: str, changed: Callable[[int], tuple[str, str]], marker: str, body: str) -> None:
    """Change the comment that begins with ``marker``, or make one.

    Args:
        listed: the path of a request's comments.
        changed: method and path that change the comment with this id.
    """
    text = f"{marker}\n{body}"
    for found in pages(client, listed):
        if not str(found.get("body", "")).startswith(marker):
            continue
        if str(found["body"]).replace("\r\n", "\n").strip() == text.strip():
            return
        method, path = changed(int(found["id"]))
        try:
            client.ask(method, path, {"body": text})
        except ForgeError as error:
            if error.status not in _NOT_OURS:
                raise
            continue  # somebody else's, who copied the line
        return
    client.ask("POST", listed, {"body": text})


def pages(client: Client, path: str, **query: str | int) -> Iterator[dict[str, Any]]:
    """All of a list, page by page. A forge that knows no pages answers the same again, and is not asked once more."""
    seen: set[int] = set()
    sizes: dict[str, str | int] = {"per_page": PAGE, "limit": PAGE}
    for page in range(1, _MOST_PAGES + 1):
        answer = client.ask("GET", path, None, **query, **sizes, page=page)
        rows = [row for row in answer or () if isinstance(row, dict)] if isinstance(answer, list) else []
        fresh = [row for row in rows if row.get("id") not in seen]
        yield from fresh
        seen.update(row["id"] for row in fresh if "id" in row)
        if len(rows) < PAGE or not fresh:
            return
