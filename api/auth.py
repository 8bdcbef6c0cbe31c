"""Who asks: logging in and out, and the session or token that every other operation needs."""

from __future__ import annotations

from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from api.clients import Client
from api.dependencies import Dependencies, Deps, Sender
from api.requests import LoginRequest
from reconciler.core.errors import ReadOnlyToken, TooManyAttempts, Unauthorized
from reconciler.operations.declaring import Actor
from reconciler.records.audit import Entry
from reconciler.records.sessions import LIFE, Session
from reconciler.records.tokens import Token as ApiToken

COOKIE = "session_token"
_LIFE_S = int(LIFE.total_seconds())

# Each verification takes 64 MiB and a core: a crowd at the door must not take the house.
_VERIFYING = BoundedSemaphore(2)

_cookie = APIKeyCookie(name=COOKIE, scheme_name="session", auto_error=False)
_bearer = HTTPBearer(scheme_name="bearer", auto_error=False)
Cookie = Annotated[str | None, Depends(_cookie)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
_READS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True)
class Caller:
    """Who sent a request, as the audit log and Git name them."""

    name: str
    email: str


def own_session(cookie: Cookie, deps: Deps) -> Session:
    """The session of the request's cookie, or 401."""
    session = deps.records.sessions.lookup(cookie, deps.now()) if cookie else None
    if session is None:
        raise Unauthorized("No valid session. Log in with POST /api/login.")
    return session


OwnSession = Annotated[Session, Depends(own_session)]


def require_session(request: Request, cookie: Cookie, bearer: Bearer, client: Sender, deps: Deps) -> Caller:
    """Who has this session or token, or 401. Where a token is sent, the cookie doesn't count."""
    if bearer is None:
        email = own_session(cookie, deps).email
        return Caller(email.partition("@")[0], email)
    token = _token(bearer.credentials, client, deps)
    if token.read_only and request.method not in _READS:
        raise ReadOnlyToken(f"Token {token.name} may only read. Make one without --read-only.")
    return Caller(token.name, f"token+{token.name}@localhost")


def _token(secret: str, client: Client, deps: Dependencies) -> ApiToken:
    """The token, at the pace that guessing is allowed."""
    now, attempts = deps.now(), deps.records.login_attempts
    wait = attempts.wait(client.address, now)
    token = None if wait else deps.records.tokens.lookup(secret, now)
    if token is not None:
        return token
    if wait := wait or attempts.begin(client.address, now):
        raise TooManyAttempts(f"Too many failed logins. Try again in {wait} seconds.", wait)
    raise Unauthorized("The token is unknown, revoked or expired. `trueup admin token create` makes one.")


Authenticated = Annotated[Caller, Depends(require_session)]


def _actor(caller: Authenticated, client: Sender) -> Actor:
    return Actor(name=caller.name, email=caller.email, source=client.address)


Asking = Annotated[Actor, Depends(_actor)]
"""Who asks, without any terms; see ``terms`` for operations that make jobs."""


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


def may_watch(request: Request, client: Sender, cookie: Cookie, bearer: Bearer, deps: Deps) -> None:
    """Prometheus on the control plane's own host needs no session; everybody else does."""
    if not client.local:
        require_session(request, cookie, bearer, client, deps)
