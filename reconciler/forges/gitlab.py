"""GitLab: https://docs.gitlab.com/api/, version 4."""

from __future__ import annotations

from urllib.parse import quote

from reconciler.core.announcing import CommitState
from reconciler.core.forge import Forge
from reconciler.forges.client import Client
from reconciler.forges.comments import pages, say
from reconciler.forges.model import CONTEXT, cut

_MOST = 255
_WORDS = {CommitState.PENDING: "pending", CommitState.SUCCESS: "success", CommitState.FAILURE: "failed"}
_SAME = "Cannot transition status"
"""Begins what GitLab answers with 400 where the commit has that very state already."""
_MERGED = ("merge_commit_sha", "squash_commit_sha", "sha")
"""A merge, a squash, or without either the last commit of the branch itself."""


class GitLab:
    def __init__(self, declared: Forge, token: str) -> None:
        self._client = Client(declared.api, ("PRIVATE-TOKEN", token), ca=declared.ca_bundle)
        self._at = f"/projects/{quote(declared.repository, safe='')}"

    def set_status(self, commit: str, state: CommitState, description: str, url: str | None) -> None:
        body = {"state": _WORDS[state], "name": CONTEXT, "description": cut(description, _MOST)}
        path = f"{self._at}/statuses/{commit}"
        answer = self._client.try_("POST", path, body | ({"target_url": url} if url else {}))
        same = answer.status == 400 and _SAME in str(answer.data)
        if not same and not 200 <= answer.status < 300:
            raise self._client.refused("POST", path, answer)

    def request_of(self, commit: str) -> int | None:
        for found in pages(self._client, f"{self._at}/repository/commits/{commit}/merge_requests"):
            if found.get("state") == "merged" and commit in {found.get(name) for name in _MERGED}:
                return int(found["iid"])
        return None

    def comment(self, number: int, marker: str, body: str) -> None:
        notes = f"{self._at}/merge_requests/{number}/notes"
        say(self._client, notes, lambda id_: ("PUT", f"{notes}/{id_}"), marker, body)

    def open_request(self, branch: str, base: str, title: str, body: str) -> str:
        at, which = f"{self._at}/merge_requests", {"source_branch": branch, "target_branch": base}
        for found in pages(self._client, at, state="opened", **which):
            if found.get("source_branch") == branch and found.get("target_branch") == base:
                return str(found["web_url"])
        asked = {**which, "title": title, "description": body, "remove_source_branch": True}
        return str(self._client.ask("POST", at, asked)["web_url"])
