"""Logging in and out."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from api.auth import Cookie, OwnSession, clear_cookie, log_in, log_out, set_cookie
from api.dependencies import Deps, Sender
from api.requests import LoginRequest, no_body
from api.views import Success

router = APIRouter(prefix="/api")


@router.post("/login")
def login(body: LoginRequest, response: Response, client: Sender, deps: Deps) -> Success:
    """Open a session and set its cookie."""
    token = log_in(body, client, deps)
    set_cookie(response, token, client)
    return Success(success=True)


@router.post("/logout", dependencies=[Depends(no_body)])
def logout(cookie: Cookie, session: OwnSession, response: Response, client: Sender, deps: Deps) -> Success:
    """End the session and clear its cookie."""
    log_out(cookie or "", session, client, deps)
    clear_cookie(response, client)
    return Success(success=True)
