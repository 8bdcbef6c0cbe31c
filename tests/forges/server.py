"""Forges on loopback that keep state as the real ones do: statuses, requests, comments, each in its own API's shape.

They refuse what the real ones refuse: a wrong token or method, an unknown path, a body that lacks a field or is too
long.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "s3cret-token-of-the-forge"
REPOSITORY = "acme/store"
HANG_UP, SILENT, DRIP, ENDLESS, NOT_JSON = 0, -1, -2, -3, -4
"""In place of a status."""


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Request:
    """A pull or merge request."""

    number: int
    branch: str
    base: str
    title: str = ""
    body: str = ""
    merged_as: str | None = None
    comments: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class ForgeServer:
    """``answers`` come first, in their order; a pair is a status with headers."""

    kind: str
    url: str = ""
    answers: list[int | tuple[int, dict[str, str]]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    statuses: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    """Commits that it does not have."""
    foreign: set[int] = field(default_factory=set)
    """Ids of comments that are somebody else's."""
    token: str = TOKEN
    next_id: int = 100

    @property
    def api(self) -> str:
        return f"{self.url}{ {'github': '', 'gitlab': '/api/v4', 'gitea': '/api/v1'}[self.kind] }"

    def declared(self, **more: Any) -> dict[str, Any]:
        """As ``spec.forge`` names it."""
        return {"kind": self.kind, "api": self.api, "repository": REPOSITORY, **more}

    def request(self, branch: str = "change", *, merged_as: str | None = None) -> Request:
        found = Request(len(self.requests) + 1, branch, "main", merged_as=merged_as)
        self.requests.append(found)
        return found

    def told(self, commit: str) -> list[tuple[str, str]]:
        """State and description of each status that a commit got, in their order."""
        return [(one["state"], one["description"]) for one in self.statuses.get(commit, [])]

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id


Reply = tuple[int, Any]
Route = Callable[..., Reply]


def _status(server: ForgeServer, commit: str, body: Any, query: dict[str, str]) -> Reply:
    name = body.get("name" if server.kind == "gitlab" else "context")
    states = {"gitlab": {"pending", "running", "success", "failed", "canceled"}}.get(
        server.kind, {"pending", "success", "failure", "error"}
    )
    most = 140 if server.kind == "github" else 255
    if commit in server.unknown:
        return 422, {"message": f"No commit found for SHA: {commit}"}
    if body.get("state") not in states or name != "trueup" or len(body.get("description", "")) > most:
        return 422, {"message": "Validation Failed", "errors": [body]}
    given = server.statuses.setdefault(commit, [])
    if server.kind == "gitlab" and given and given[-1]["state"] == body["state"] == "pending":
        return 400, {"message": "Cannot transition status via :enqueue from :pending (Reason(s): Status cannot…)"}
    given.append(body)
    return 201, {"id": server.new_id()}


def _by_number(server: ForgeServer, number: str) -> Request | None:
    return next((one for one in server.requests if one.number == int(number)), None)


def _page(rows: list[Any], query: dict[str, str]) -> list[Any]:
    size = int(query.get("per_page") or query.get("limit") or 30)
    start = (int(query.get("page", 1)) - 1) * size
    return rows[start : start + size]


def _comments(server: ForgeServer, number: str, body: Any, query: dict[str, str]) -> Reply:
    found = _by_number(server, number)
    if found is None:
        return 404, {"message": "Not Found"}
    # Gitea has no pages here.
    return 200, found.comments if server.kind == "gitea" else _page(found.comments, query)


def _new_comment(server: ForgeServer, number: str, body: Any, query: dict[str, str]) -> Reply:
    found = _by_number(server, number)
    if found is None or not isinstance(body.get("body"), str):
        return 422, {"message": "Validation Failed"}
    made = {"id": server.new_id(), "body": body["body"]}
    found.comments.append(made)
    return 201, made


def _change_comment(server: ForgeServer, *parts: Any) -> Reply:
    id_, body = int(parts[-3]), parts[-2]
    if id_ in server.foreign:
        return 403, {"message": "Must have admin rights to Repository."}
    for one in (comment for request in server.requests for comment in request.comments):
        if one["id"] == id_:
            one["body"] = body["body"]
            return 200, one
    return 404, {"message": "Not Found"}


def _shown(server: ForgeServer, one: Request) -> dict[str, Any]:
    address = f"{server.url}/{REPOSITORY}/pulls/{one.number}"
    if server.kind == "gitlab":
        state = "merged" if one.merged_as else "opened"
        merged = {"merge_commit_sha": one.merged_as, "squash_commit_sha": None, "sha": "f" * 40}
        branches = {"source_branch": one.branch, "target_branch": one.base}
        return {"id": 9000 + one.number, "iid": one.number, "state": state, "web_url": address, **branches, **merged}
    merged_at = "2026-11-29T06:00:00Z" if one.merged_as else None
    return {
        "id": 9000 + one.number,
        "number": one.number,
        "html_url": address,
        "merged_at": merged_at,
        "merged": bool(one.merged_as),
        "merge_commit_sha": one.merged_as or "e" * 40,
        "head": {"ref": one.branch},
        "base": {"ref": one.base},
    }


def _of_commit(server: ForgeServer, commit: str, body: Any, query: dict[str, str]) -> Reply:
    found = [_shown(server, one) for one in server.requests if one.merged_as == commit]
    if server.kind == "gitea":
        return (200, found[0]) if found else (404, {"message": "The target couldn't be found."})
    # An open request that has the commit, too, comes along.
    others = [_shown(server, one) for one in server.requests if one.merged_as is None]
    return 200, _page([*others, *found], query)


def _open(server: ForgeServer, body: Any, query: dict[str, str]) -> Reply:
    rows = [one for one in server.requests if one.merged_as is None]
    if server.kind == "github":
        rows = [one for one in rows if query["head"] == f"acme:{one.branch}" and query["base"] == one.base]
    elif server.kind == "gitlab":
        rows = [one for one in rows if query["source_branch"] == one.branch and query["target_branch"] == one.base]
    return 200, _page([_shown(server, one) for one in rows], query)


def _new_request(server: ForgeServer, body: Any, query: dict[str, str]) -> Reply:
    names = ("source_branch", "target_branch", "description") if server.kind == "gitlab" else ("head", "base", "body")
    branch, base, text = (body.get(name) for name in names)
    if not (branch and base and body.get("title")):
        return 422, {"message": "Validation Failed"}
    if any(one.branch == branch and one.merged_as is None for one in server.requests):
        return 409, {"message": "Another open request already exists for this source branch"}
    made = server.request(branch)
    made.base, made.title, made.body = base, body["title"], text or ""
    return 201, _shown(server, made)


_HUB: list[tuple[str, str, Route]] = [
    ("POST", r"/repos/acme/store/statuses/([0-9a-f]{40})", _status),
    ("GET", r"/repos/acme/store/issues/(\d+)/comments", _comments),
    ("POST", r"/repos/acme/store/issues/(\d+)/comments", _new_comment),
    ("PATCH", r"/repos/acme/store/issues/comments/(\d+)", _change_comment),
    ("GET", r"/repos/acme/store/pulls", _open),
    ("POST", r"/repos/acme/store/pulls", _new_request),
]
_LAB = r"/api/v4/projects/acme%2Fstore"
ROUTES: dict[str, list[tuple[str, str, Route]]] = {
    "github": [*_HUB, ("GET", r"/repos/acme/store/commits/([0-9a-f]{40})/pulls", _of_commit)],
    "gitea": [
        *((method, f"/api/v1{path}", route) for method, path, route in _HUB),
        ("GET", r"/api/v1/repos/acme/store/commits/([0-9a-f]{40})/pull", _of_commit),
    ],
    "gitlab": [
        ("POST", rf"{_LAB}/statuses/([0-9a-f]{{40}})", _status),
        ("GET", rf"{_LAB}/repository/commits/([0-9a-f]{{40}})/merge_requests", _of_commit),
        ("GET", rf"{_LAB}/merge_requests/(\d+)/notes", _comments),
        ("POST", rf"{_LAB}/merge_requests/(\d+)/notes", _new_comment),
        ("PUT", rf"{_LAB}/merge_requests/(\d+)/notes/(\d+)", _change_comment),
        ("GET", rf"{_LAB}/merge_requests", _open),
        ("POST", rf"{_LAB}/merge_requests", _new_request),
    ],
}


def _is_let_in(server: ForgeServer, headers: dict[str, str]) -> bool:
    expected = {
        "github": ("authorization", f"Bearer {server.token}"),
        "gitea": ("authorization", f"token {server.token}"),
        "gitlab": ("private-token", server.token),
    }[server.kind]
    return headers.get(expected[0]) == expected[1]


def _routed(server: ForgeServer, asked: Asked) -> Reply:
    if not _is_let_in(server, asked.headers):
        return 401, {"message": f"Bad credentials: {asked.headers.get('authorization')}"}
    parts = urlsplit(asked.path)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    for method, pattern, route in ROUTES[server.kind]:
        if method == asked.method and (found := re.fullmatch(pattern, parts.path)):
            return route(server, *map(unquote, found.groups()), asked.body, query)
    return 404, {"message": "Not Found"}


@contextmanager
def forge_server(kind: str) -> Iterator[ForgeServer]:
    forge, turn, stop = ForgeServer(kind), threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(length)
            body = json.loads(content) if content else None
            asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            with turn:
                forge.asked.append(asked)
                first = forge.answers.pop(0) if forge.answers else None
                reply = _routed(forge, asked) if first is None else None
            if reply is None:
                self._misbehave(first)
                return
            self._answer(reply[0], json.dumps(reply[1]).encode(), {})

        def _misbehave(self, first: int | tuple[int, dict[str, str]] | None) -> None:
            status, headers = first if isinstance(first, tuple) else (first, {})
            assert status is not None
            if status == HANG_UP:
                self.close_connection = True
            elif status == SILENT:
                stop.wait(60)
            elif status == DRIP:
                self.wfile.write(b"HTTP/1.1 ")
                while not stop.wait(0.1):
                    self.wfile.write(b" ")
            elif status == ENDLESS:
                self.send_response(200)
                self.end_headers()
                until = time.monotonic() + 60
                while time.monotonic() < until and not stop.is_set():
                    self.wfile.write(b" " * 65536)
            elif status == NOT_JSON:
                self._answer(200, b"<html>Sign in</html>", {})
            else:
                if 300 <= status < 400:
                    headers = {"Location": f"{forge.url}/elsewhere", **headers}
                self._answer(status, b'{"message": "told to"}', headers)

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

        def log_message(self, *_: object) -> None:
            """Nothing on standard error."""

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                """Who asked has gone."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    forge.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield forge
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
