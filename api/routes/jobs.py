"""Jobs: what was accepted, and what became of it."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Depends, Response

from api.auth import require_session
from api.dependencies import Deps
from api.views import JOBS, Job, as_json, job_view

router = APIRouter(prefix="/api/jobs", dependencies=[Depends(require_session)])

NEWEST = 200


@router.get("", response_model=list[Job])
def list_jobs(deps: Deps) -> Response:
    """The newest jobs, newest first."""
    return as_json(JOBS, [job_view(job) for job in deps.records.jobs.page(limit=NEWEST).jobs])


@router.get("/{id}")
def get_job(id: UUID, deps: Deps) -> Job:
    """One job."""
    return job_view(deps.records.jobs.get(id))
