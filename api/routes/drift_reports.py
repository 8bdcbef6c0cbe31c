"""Drift reports, an addition to the contract: made on request, kept, and shown to programs and people."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Response

from api.auth import require_session
from api.dependencies import Deps
from api.pages import Asked
from api.requests import no_body
from api.terms import Once
from api.views import (
    DriftReport,
    DriftReportHead,
    JobAccepted,
    accepted,
    drift_report_heads,
    drift_report_view,
)
from reconciler.reports.html import POLICY, html
from reconciler.reports.markdown import markdown
from reconciler.reports.model import Report

router = APIRouter(prefix="/api/drift-reports", dependencies=[Depends(require_session)])


class Shape(StrEnum):
    """What a report can be answered as."""

    JSON = "json"
    MARKDOWN = "markdown"
    HTML = "html"


TYPES = {"application/json": Shape.JSON, "text/markdown": Shape.MARKDOWN, "text/html": Shape.HTML}
_SHAPES: dict[int | str, dict[str, Any]] = {
    200: {"content": {name: {"schema": {"type": "string"}} for name in ("text/markdown", "text/html")}}
}


@router.get("")
def list_drift_reports(deps: Deps, part: Asked, response: Response) -> list[DriftReportHead]:
    """The reports that are kept, newest first."""
    heads, cursor = part.of(
        drift_report_heads(deps.records), lambda head: (head.created_at.isoformat(), str(head.id)), newest_first=True
    )
    part.link(response, cursor)
    return heads


@router.post("", status_code=202, dependencies=[Depends(no_body)])
def make_drift_report(who: Once, response: Response, deps: Deps) -> JobAccepted:
    """A job that makes a report; the report has its id."""
    return accepted(response, deps.operations.drift_report(who))


@router.get("/{id}", response_model=DriftReport, responses=_SHAPES)
def get_drift_report(
    id: UUID,
    deps: Deps,
    format: Annotated[Shape | None, Query()] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """One report: as ``format`` says, else as the client would rather have it, else as JSON."""
    shape = format or preferred(accept)
    kept = deps.records.reports.get(id)
    if shape is Shape.JSON:
        view = drift_report_view(kept, deps.records.deliveries.of(id))
        return Response(view.model_dump_json(), media_type="application/json", headers={"Vary": "Accept"})
    report = Report.model_validate(kept.report)
    headers = {"Vary": "Accept"}
    if shape is Shape.MARKDOWN:
        return Response(markdown(report), media_type="text/markdown", headers=headers)
    return Response(html(report), media_type="text/html", headers={**headers, "Content-Security-Policy": POLICY})


def preferred(accept: str) -> Shape:
    """The shape that an ``Accept`` header likes best; of those that it likes alike, the first of ``TYPES``."""
    found: dict[str, float] = {}
    for part in accept.split(","):
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        weights = [parameter.removeprefix("q=") for parameter in parameters if parameter.startswith("q=")]
        found[name] = _weight(weights[0]) if weights else 1.0
    liked = {name: _liking(name, found) for name in TYPES}
    best = max(liked, key=lambda name: liked[name])
    return TYPES[best] if liked[best] > 0 else Shape.JSON


def _liking(name: str, found: dict[str, float]) -> float:
    kinds = (name, f"{name.partition('/')[0]}/*", "*/*")
    return next((found[kind] for kind in kinds if kind in found), 0.0)


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
