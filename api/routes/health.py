"""For machines that watch: alive, ready, and Prometheus. Outside ``/api`` and its contract."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.auth import may_watch
from api.dependencies import Deps
from api.errors import NotReady
from api.observability import Watch, check_ready
from reconciler.core.errors import RecordsError, StoreError
from reconciler.store import standing

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def healthz() -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
def readyz(deps: Deps) -> Response:
    """Database and store can be read and written; and how the store stands with the repository that it follows."""
    try:
        check_ready(deps)
    except (StoreError, RecordsError) as error:
        raise NotReady(f"Not ready: {error.code}. The control plane's log has the details.") from error
    answer = {"status": "ready"}
    if deps.settings.upstream is not None:
        # The address and the reasons are for those who may look: `trueup status`, the log.
        found = standing.read(deps.settings.upstream_standing)
        answer["upstream"] = found.state.value if found else "unknown"
    return JSONResponse(answer)


@router.get("/metrics", dependencies=[Depends(may_watch)])
def metrics(request: Request) -> Response:
    """What Prometheus scrapes."""
    watch: Watch = request.app.state.watch
    return Response(generate_latest(watch.registry), media_type=CONTENT_TYPE_LATEST)
