"""GitHub, and GitHub Enterprise: https://docs.github.com/rest, API version 2022-11-28."""

from __future__ import annotations

from reconciler.core.announcing import CommitState
from reconciler.core.forge import Forge
from reconciler.forges.client import Client
from reconciler.forges.comments import pages, say
from reconciler.forges.model import CONTEXT, cut

_MOST = 140
"""Characters of a status' description."""


class GitHub:
    def __init__(self, declared: Forge, token: str) -> None:
        accept, header = "application/vnd.github+json", ("Authorization", f"Bearer {token}")
        self._client = Client(declared.api, header, accept=accept, ca=declared.ca_bundle)
        self._at = f"/repos/{declared.repository}"
        self._owner = declared.repository.partition("/")[0]

    def set_status(self, commit: str, state: CommitState, description: str, url: str | None) -> None:
        body = {"state": state.value, "context": CONTEXT, "description": cut(description, _MOST)}
        self._client.ask("POST", f"{self._at}/statuses/{commit}", body | ({"target_url": url} if url else {}))

    def request_of(self, commit: str) -> int | None:
        for found in pages(self._client, f"{self._at}/commits/{commit}/pulls"):
            if found.get("merged_at") and found.get("merge_commit_sha") == commit:
                return int(found["number"])
        return None

    def comment(self, number: int, marker: str, body: str) -> None:
        at = f"{self._at}/issues"
        say(self._client, f"{at}/{number}/comments", lambda id_: ("PATCH", f"{at}/comments/{id_}"), marker, body)

    def open_request(self, branch: str, base: str, title: str, body: str) -> str:
        head = f"{self._owner}:{branch}"
        for found in pages(self._client, f"{self._at}/pulls", state="open", head=head, base=base):
            if (found.get("head") or {}).get("ref") == branch:
                return str(found["html_url"])
        asked = {"head": branch, "base": base, "title": title, "body": body}
        return str(self._client.ask("POST", f"{self._at}/pulls", asked)["html_url"])
