"""Gitea from 1.20 and Forgejo from 7: /api/swagger of the forge itself."""

from __future__ import annotations

from reconciler.core.announcing import CommitState
from reconciler.core.forge import Forge
from reconciler.forges.client import Client
from reconciler.forges.comments import pages, say
from reconciler.forges.model import CONTEXT, cut

_MOST = 255


class Gitea:
    def __init__(self, declared: Forge, token: str) -> None:
        self._client = Client(declared.api, ("Authorization", f"token {token}"), ca=declared.ca_bundle)
        self._at = f"/repos/{declared.repository}"

    def set_status(self, commit: str, state: CommitState, description: str, url: str | None) -> None:
        body = {"state": state.value, "context": CONTEXT, "description": cut(description, _MOST)}
        self._client.ask("POST", f"{self._at}/statuses/{commit}", body | ({"target_url": url} if url else {}))

    def request_of(self, commit: str) -> int | None:
        path = f"{self._at}/commits/{commit}/pull"
        answer = self._client.try_("GET", path)
        if answer.status == 404:
            return None
        if answer.status != 200 or not isinstance(answer.data, dict):
            raise self._client.refused("GET", path, answer)
        merged = answer.data.get("merged") and answer.data.get("merge_commit_sha") in {commit, None}
        return int(answer.data["number"]) if merged else None

    def comment(self, number: int, marker: str, body: str) -> None:
        at = f"{self._at}/issues"
        say(self._client, f"{at}/{number}/comments", lambda id_: ("PATCH", f"{at}/comments/{id_}"), marker, body)

    def open_request(self, branch: str, base: str, title: str, body: str) -> str:
        for found in pages(self._client, f"{self._at}/pulls", state="open"):
            if (found.get("head") or {}).get("ref") == branch and (found.get("base") or {}).get("ref") == base:
                return str(found["html_url"])
        asked = {"head": branch, "base": base, "title": title, "body": body}
        return str(self._client.ask("POST", f"{self._at}/pulls", asked)["html_url"])
