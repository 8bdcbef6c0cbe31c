"""The server below the application: how long a client may take to ask, and to listen.

uvicorn ends idle connections between two requests, and none in the middle of one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.errors import RequestTimeout
from reconciler.core.errors import Invalid, TrueupError

HEAD_S = 15.0
"""For a request line and its headers, from the connection's begin or the first byte on."""
GRACE_S = 30.0
SLOWEST = 1 << 10
"""Bytes of a body per second, on average, once it had ``GRACE_S``."""
KEPT_S = 75
"""Between two requests on one connection. Longer than clients keep theirs (5 to 60 s): who sends a request at the
moment of the end loses it."""
LOOK_S = 5.0
LISTEN_S = 60.0
"""A client that takes nothing of an answer for so long is gone."""
MOST_HEAD_BYTES = 64 << 10
_NO_HTTP = "The request is no HTTP. Correct it and send it again."
_LATE = "The request did not arrive in time. Send it again."


def server_config(app: FastAPI, **more: Any) -> uvicorn.Config:
    """How the application is served."""
    return uvicorn.Config(
        app,
        http=TimedProtocol,
        # The API reads proxy headers itself, and only those of trusted proxies.
        proxy_headers=False,
        server_header=False,
        log_config=None,
        timeout_keep_alive=KEPT_S,
        h11_max_incomplete_event_size=MOST_HEAD_BYTES,
        **more,
    )


class TimedProtocol(H11Protocol):
    """One connection, which a client cannot keep by sending or taking next to nothing."""

    head_s, grace_s, look_s, listen_s = HEAD_S, GRACE_S, LOOK_S, LISTEN_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head: asyncio.TimerHandle | None = None
        self._body: asyncio.TimerHandle | None = None
        self._listening: asyncio.TimerHandle | None = None
        self._arrived, self._body_s = 0, 0.0
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._arrived += len(data)
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._body, self._listening):
            _cancel(timer)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """For what h11 cannot read; uvicorn's own answer is text."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.write(_answer(Invalid(_NO_HTTP), "400 Bad Request"))
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        _cancel(self._listening)
        self._listening = self.loop.call_later(self.listen_s, self.transport.abort)

    def resume_writing(self) -> None:
        _cancel(self._listening)
        super().resume_writing()

    def _watch(self) -> None:
        """Set the time for what the client is at: a head, or a body."""
        state = self.conn.their_state
        # Between two requests uvicorn has a timer of its own, which the first byte ends.
        if state is h11.IDLE and self.timeout_keep_alive_task is None:
            self._head = self._head or self._later(self.head_s, self._end_late)
        else:
            _cancel(self._head)
            self._head = None
        if state is h11.SEND_BODY:
            if self._body is None:
                self._arrived, self._body_s = 0, 0.0
                self._body = self._later(self.look_s, self._look)
        else:
            _cancel(self._body)
            self._body = None

    def _look(self) -> None:
        # While nobody reads what came, nothing more can come.
        if not self.flow.read_paused:
            self._body_s += self.look_s
        if self._body_s > self.grace_s and self._arrived < SLOWEST * self._body_s:
            self._end_late()
        else:
            self._body = self._later(self.look_s, self._look)

    def _end_late(self) -> None:
        if self.transport.is_closing():
            return
        if self._may_tell():
            self.transport.write(_answer(RequestTimeout(_LATE), "408 Request Timeout"))
        self.transport.close()

    def _may_tell(self) -> bool:
        """Whether there is a request that no answer was begun to."""
        if self.conn.their_state is h11.SEND_BODY:
            return not self.cycle.response_started
        return bool(self.conn.trailing_data[0]) and (self.cycle is None or self.cycle.response_complete)

    def _later(self, seconds: float, what: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, what)


def _answer(error: TrueupError, status: str) -> bytes:
    """A whole answer, for where there is no request that could be answered; the connection ends with it."""
    body = json.dumps({"code": error.code, "message": error.message}).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
