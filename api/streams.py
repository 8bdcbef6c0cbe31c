"""A job's events as a stream: those that were, those that come, and the end. Holds no thread while it waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from time import monotonic
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.views import JobEvent, job_event_view
from reconciler.records.events import Event, EventKind
from reconciler.state import Records

STREAM = "text/event-stream"
POLL_S = 0.3
BEAT_S = 15.0
"""A comment after so much silence keeps proxies from hanging up, and tells us when the client has."""
LONGEST_S = 600.0
"""Then the client comes again with ``Last-Event-ID``, and shows its session or token anew."""
RETRY_MS = 1000


class Ending:
    """Whether the server is about to end; its streams end first."""

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        self.begun = True


async def stream(job_id: UUID, after: int, records: Records, ending: Ending) -> AsyncIterator[str]:
    """The job's events after that number, as Server-Sent Events, until the job's last."""
    yield f"retry: {RETRY_MS}\n\n"
    began = spoke = monotonic()
    while not ending.begun and monotonic() - began < LONGEST_S:
        events = await run_in_threadpool(records.events.after, job_id, after)
        for event in events:
            after, spoke = event.number, monotonic()
            yield _told(job_event_view(event))
        if events and events[-1].kind is EventKind.FINISHED:
            return
        if monotonic() - spoke > BEAT_S:
            spoke = monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(POLL_S)


def wants_stream(accept: str) -> bool:
    """Whether the ``Accept`` header prefers a stream to JSON. One that names neither gets JSON."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        weights[kind] = next((_weight(one[2:]) for one in parameters if one.startswith("q=")), 1.0)
    return weights.get(STREAM, 0.0) > weights.get("application/json", 0.0)


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def is_over(events: list[Event]) -> bool:
    """Whether these, all that there are, end with the job."""
    return bool(events) and events[-1].kind is EventKind.FINISHED


def _told(event: JobEvent) -> str:
    data = json.dumps(event.model_dump(mode="json"), ensure_ascii=False)
    return f"id: {event.number}\nevent: {event.kind}\ndata: {data}\n\n"
