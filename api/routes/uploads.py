"""Archives that are sent here to be deployed."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Depends, Request

from api.auth import require_session
from api.dependencies import Deps
from api.views import Upload, upload_view
from reconciler.core.errors import Invalid
from reconciler.sources import uploads_of

router = APIRouter(prefix="/api/uploads", dependencies=[Depends(require_session)])
TYPE = "application/octet-stream"
_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {TYPE: {"schema": {"type": "string", "format": "binary"}}}}
}


@router.post("", status_code=201, openapi_extra=_BODY)
async def upload(request: Request, deps: Deps) -> Upload:
    """Keep an archive, as it comes in; name it in a deploy afterwards."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != TYPE:
        raise Invalid(f"Content-Type must be {TYPE}. Send the archive itself, not a form.")
    length = request.headers.get("content-length", "")
    declared = int(length) if length.isdecimal() else None
    return upload_view(await uploads_of(deps.settings).receive(uuid4(), declared, request.stream()))
