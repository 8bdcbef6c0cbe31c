"""What every request passes before it is routed: its origin and its size; and what every answer carries."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.clients import Networks, client_of, is_foreign
from api.errors import CrossOrigin, RequestTooLarge, answer
from api.observability import Watch
from reconciler.core.errors import Invalid

BODY_LIMIT = 64 * 1024
STREAMED = ("/api/uploads", "/api/hooks/")
"""Where paths begin whose bodies are not read into memory here; the route has a limit of its own."""
_READS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Gate:
    """ASGI middleware. Leaves the request's ``Client`` in ``request.state.client``."""

    def __init__(self, app: ASGIApp, trusted: Networks, watch: Watch) -> None:
        self._app = app
        self._trusted = trusted
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, peer = Headers(scope=scope), (scope.get("client") or ("", 0))[0]
        client = client_of(peer, scope.get("scheme", "http"), headers, self._trusted)
        scope.setdefault("state", {})["client"] = client
        send = self._watch.timed(scope, _with_headers(send))
        if problem := _ambiguous(scope, headers):
            refused = answer(Invalid(f"{problem} Send the request again, with one length."))
            # What follows on this connection may be the rest of this request, or another one.
            refused.headers["Connection"] = "close"
            await refused(scope, receive, send)
        elif scope["method"] in _READS:
            await self._app(scope, receive, send)
        elif not _has_token(headers) and is_foreign(
            headers.get("origin"), headers.get("sec-fetch-site"), headers.get("host", ""), client.secure
        ):
            refusal = CrossOrigin(
                "The request comes from another origin. Send it from the control plane's own address."
            )
            await answer(refusal)(scope, receive, send)
        elif scope["path"].startswith(STREAMED):
            await self._app(scope, receive, send)
        elif (body := await _read(headers, receive)) is None:
            refusal_ = RequestTooLarge(f"The body is larger than {BODY_LIMIT // 1024} KiB. Send less.")
            await answer(refusal_)(scope, receive, send)
        else:
            await self._app(scope, _replay(body, receive), send)


def _ambiguous(scope: Scope, headers: Headers) -> str | None:
    """Why a proxy in front may take another part of this for the request's body than the server did."""
    if "transfer-encoding" not in headers:
        return None
    if "content-length" in headers:
        return "The request has both Content-Length and Transfer-Encoding."
    if scope["http_version"] == "1.0":
        return "The request is HTTP/1.0, which has no Transfer-Encoding."
    return None


def _has_token(headers: Headers) -> bool:
    """A page cannot make another's browser send one, and where one is sent, the cookie doesn't count."""
    return headers.get("authorization", "").lower().startswith("bearer ")


async def _read(headers: Headers, receive: Receive) -> list[Message] | None:
    """The whole body; None as soon as it is known to be over the limit."""
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > BODY_LIMIT:
        return None
    messages: list[Message] = []
    size = 0
    while True:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if size > BODY_LIMIT:
            return None
        if message["type"] != "http.request" or not message.get("more_body", False):
            return messages


def _replay(messages: list[Message], receive: Receive) -> Receive:
    waiting = iter(messages)

    async def replay() -> Message:
        return next(waiting, None) or await receive()

    return replay


def _with_headers(send: Send) -> Send:
    """Answers belong to one session and to no cache; browsers take them for what they say they are."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("Cache-Control", "no-store")
            headers["X-Content-Type-Options"] = "nosniff"
        await send(message)

    return send_with_headers
