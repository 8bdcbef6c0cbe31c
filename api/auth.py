"""Who asks: logging in and out, and the session that every other operation needs."""

from __future__ import annotations

from threading import BoundedSemaphore
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.security import APIKeyCookie

from api.clients import Client
from api.dependencies import Dependencies, Deps, Sender
from api.requests import LoginRequest
from reconciler.core.errors import TooManyAttempts, Unauthorized
from reconciler.declaring import Actor
from reconciler.records.audit import Entry
from reconciler.records.sessions import LIFE, Session

COOKIE = "session_token"
_LIFE_S = int(LIFE.total_seconds())

# Each verification takes 64 MiB and a core: a crowd at the door must not take the house.
_VERIFYING = BoundedSemaphore(2)

_cookie = APIKeyCookie(name=COOKIE, scheme_name="session", auto_error=False)
Token = Annotated[str | None, Depends(_cookie)]


def require_session(token: Token, deps: Deps) -> Session:
    """The session of the request's cookie, or 401."""
    session = deps.records.sessions.lookup(token, deps.now()) if token else None
    if session is None:
        raise Unauthorized("No valid session. Log in with POST /api/login.")
    return session


Authenticated = Annotated[Session, Depends(require_session)]


def _actor(session: Authenticated, client: Sender) -> Actor:
    return Actor(name=session.email.partition("@")[0], email=session.email, source=client.address)


Who = Annotated[Actor, Depends(_actor)]


def log_in(request: LoginRequest, client: Client, deps: Dependencies) -> str:
    """A new session's token for the right email and password.

    Raises:
        TooManyAttempts: too many wrong ones lately; nothing was looked at.
        Unauthorized: one of the two is wrong.
    """
    now = deps.now()
    if wait := deps.records.login_attempts.begin(client.address, now):
        raise TooManyAttempts(f"Too many failed logins. Try again in {wait} seconds.", wait)
    with _VERIFYING:
        right = deps.records.admins.verify(request.email, request.password, now)
    deps.records.audit.append(_entry(request.email, client, "login", "done" if right else Unauthorized.code), now)
    if not right:
        raise Unauthorized("Email or password is wrong.")
    deps.records.login_attempts.succeeded(client.address, now)
    return deps.records.sessions.create(request.email, client.address, now)


def log_out(token: str, session: Session, client: Client, deps: Dependencies) -> None:
    """End the session on the server."""
    deps.records.sessions.revoke(token)
    deps.records.audit.append(_entry(session.email, client, "logout", "done"), deps.now())


def _entry(email: str, client: Client, operation: str, outcome: str) -> Entry:
    return Entry(who=email, source=client.address, operation=operation, outcome=outcome, summary={})


def set_cookie(response: Response, token: str, client: Client) -> None:
    response.set_cookie(
        COOKIE, token, max_age=_LIFE_S, path="/", secure=client.secure, httponly=True, samesite="strict"
    )


def clear_cookie(response: Response, client: Client) -> None:
    response.delete_cookie(COOKIE, path="/", secure=client.secure, httponly=True, samesite="strict")


def may_watch(request: Request, client: Sender, token: Token, deps: Deps) -> None:
    """Prometheus on the control plane's own host needs no session; everybody else does."""
    if not client.local:
        require_session(token, deps)
