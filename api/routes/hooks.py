"""Hooks of forges. Each is as good as any other: its signature counts, what it says is not even read."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Header, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.dependencies import Deps
from api.errors import RequestTooLarge
from api.views import Success
from reconciler.core.errors import Invalid, Unauthorized
from reconciler.operations import hooks

router = APIRouter(prefix="/api/hooks")
log = structlog.get_logger()

LARGEST = 25 * 2**20
"""What GitHub sends at most. It goes through the digest, and is kept nowhere."""
_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
}


Forge = Literal["github", "gitea", "gitlab"]


@router.post("/{forge}", status_code=202, openapi_extra=_BODY)
async def hook(
    forge: Forge,
    request: Request,
    deps: Deps,
    x_hub_signature_256: Annotated[str | None, Header(alias="X-Hub-Signature-256")] = None,
    x_gitea_signature: Annotated[str | None, Header(alias="X-Gitea-Signature")] = None,
    x_gitlab_token: Annotated[str | None, Header(alias="X-Gitlab-Token")] = None,
) -> Success:
    """Look at upstream now."""
    key = await run_in_threadpool(hooks.key_of, deps.settings)
    given = {"github": x_hub_signature_256, "gitea": x_gitea_signature, "gitlab": x_gitlab_token}[forge]
    digest = await _digest(request, key)
    right = {"github": b"sha256=" + digest, "gitea": digest, "gitlab": key}[forge]
    # Headers are bytes that Starlette reads as Latin-1.
    if not hmac.compare_digest((given or "").encode("latin-1"), right):
        raise Unauthorized("The signature is missing or wrong. Give the forge the secret of `trueup upstream hook`.")
    await run_in_threadpool(hooks.ask, deps.settings)
    log.info("a forge asks for a look at upstream", forge=forge)
    return Success(success=True)


async def _digest(request: Request, key: bytes) -> bytes:
    """The body's HMAC in hexadecimal digits."""
    if _declared(request) > LARGEST:
        raise _too_large()
    code, size = hmac.new(key, digestmod=hashlib.sha256), 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > LARGEST:
                raise _too_large()
            code.update(part)
    except ClientDisconnect as error:
        raise Invalid("The body broke off. Send it again.") from error
    return code.hexdigest().encode()


def _declared(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"The body is larger than {LARGEST // 2**20} MiB. Let the hook tell of pushes only.")
