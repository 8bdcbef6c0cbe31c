"""Archives that are sent here to be deployed."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool

from api.auth import Asking, require_session
from api.dependencies import Deps
from api.terms import KeyHeader, answer_once
from api.views import Upload, upload_view
from reconciler.core.errors import Invalid
from reconciler.sources.resolving import uploads_of

router = APIRouter(prefix="/api/uploads", dependencies=[Depends(require_session)])
TYPE = "application/octet-stream"
_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {TYPE: {"schema": {"type": "string", "format": "binary"}}}}
}


@router.post("", status_code=201, openapi_extra=_BODY)
async def upload(request: Request, who: Asking, deps: Deps, key: KeyHeader = None) -> Upload:
    """Keep an archive, as it comes in; name it in a deploy afterwards."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != TYPE:
        raise Invalid(f"Content-Type must be {TYPE}. Send the archive itself, not a form.")
    length = request.headers.get("content-length", "")
    declared = int(length) if length.isdecimal() else None
    uploads = uploads_of(deps.settings)
    received = await uploads.receive(uuid4(), declared, request.stream())
    view = upload_view(received)
    if key is not None:
        # What it says is known only now that it is here.
        said = f"POST /api/uploads {received.sha256}"
        await run_in_threadpool(answer_once, who, key, said, view, lambda: uploads.discard(received), deps)
    return view
