"""Jobs: what was accepted, and what became of it."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import StreamingResponse

from api.auth import require_session
from api.dependencies import Deps
from api.pages import LARGEST, Asked
from api.requests import no_body
from api.streams import STREAM, is_over, stream, wants_stream
from api.terms import Once
from api.views import (
    JOB_EVENTS,
    JOBS,
    Job,
    JobAccepted,
    JobDetails,
    JobEvent,
    accepted,
    as_json,
    job_details_view,
    job_event_view,
    job_view,
)
from reconciler.core.jobs import JobStatus
from reconciler.records.jobs import JobFilter

router = APIRouter(prefix="/api/jobs", dependencies=[Depends(require_session)])
LastEventId = Annotated[int | None, Header(alias="Last-Event-ID", ge=0, le=2**31 - 1)]


@router.get("", response_model=list[Job])
def list_jobs(
    deps: Deps,
    part: Asked,
    status: JobStatus | None = None,
    site_id: UUID | None = None,
    environment_id: UUID | None = None,
) -> Response:
    """The jobs that were asked for, newest first."""
    statuses = frozenset({status}) if status else None
    wanted = JobFilter(statuses=statuses, site_id=site_id, environment_id=environment_id)
    page = deps.records.jobs.page(wanted, part.limit or LARGEST, part.cursor)
    response = as_json(JOBS, [job_view(job) for job in page.jobs])
    part.link(response, page.next_cursor)
    return response


@router.get("/{id}")
def get_job(id: UUID, deps: Deps) -> JobDetails:
    """One job, with its result."""
    return job_details_view(deps.records.jobs.get(id))


@router.post("/{id}/cancel", status_code=202, dependencies=[Depends(no_body)])
def cancel_job(id: UUID, who: Once, response: Response, deps: Deps) -> JobAccepted:
    """Stop a job: one that waits at once, one that runs within seconds, on its node too."""
    return accepted(response, deps.operations.cancel(id, who))


@router.get("/{id}/events", response_model=list[JobEvent])
def job_events(id: UUID, request: Request, deps: Deps, last_event_id: LastEventId = None) -> Response:
    """What happened to a job, after the event that was seen last: as a list, or as a stream to whoever accepts one."""
    deps.records.jobs.get(id)
    after = last_event_id or 0
    if not wants_stream(request.headers.get("accept", "")):
        return as_json(JOB_EVENTS, [job_event_view(event) for event in deps.records.events.after(id, after)])
    if is_over(deps.records.events.after(id)) and not deps.records.events.after(id, after, limit=1):
        # What makes a browser's EventSource come back no more.
        return Response(status_code=204)
    events = stream(id, after, deps.records, request.app.state.ending)
    return StreamingResponse(events, media_type=STREAM, headers={"X-Accel-Buffering": "no"})
