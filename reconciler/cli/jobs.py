"""``trueup job``: what runs, what ran, and why it failed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import typer

from reconciler.cli.context import actor, opened, wait_for
from reconciler.cli.output import Format, Output, data, fail, say, show
from reconciler.core.jobs import JobStatus
from reconciler.home import Home
from reconciler.records.jobs import Job, JobFilter

app = typer.Typer(help="Jobs.", no_args_is_help=True)


@app.command("list")
def list_jobs(
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs with this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, newest first.")] = 20,
    output: Output = Format.TABLE,
) -> None:
    """The latest jobs."""
    with opened() as home:
        wanted = JobFilter(statuses=frozenset({status}) if status else None, ephemeral=None if status else False)
        rows = [row(home, job) for job in home.records.jobs.page(wanted, limit).jobs]
        show(rows, ("id", "job_type", "target", "status", "created_at", "seconds", "error_code"), output)


@app.command("show")
def show_job(job_id: Annotated[UUID, typer.Argument(help="The job's id.")], output: Output = Format.TABLE) -> None:
    """One job, whole."""
    with opened() as home:
        job = home.records.jobs.get(job_id)
        data(asdict(job), Format.YAML if output is Format.TABLE else output)


@app.command()
def follow(job_id: Annotated[UUID, typer.Argument(help="The job's id.")]) -> None:
    """Wait for a job's end; exit code 1 when it failed."""
    with opened() as home:
        finish(home, job_id, wait=True)


@app.command()
def events(job_id: Annotated[UUID, typer.Argument(help="The job's id.")], output: Output = Format.TABLE) -> None:
    """What happened to a job so far."""
    with opened() as home:
        home.records.jobs.get(job_id)
        rows = [{**asdict(event), "kind": event.kind.value} for event in home.records.events.after(job_id)]
        show(rows, ("number", "at", "kind", "data"), output)


@app.command()
def cancel(
    job_id: Annotated[UUID, typer.Argument(help="The job's id.")],
    wait: Annotated[bool, typer.Option(help="Wait until it has stopped.")] = True,
) -> None:
    """Stop a job: one that waits at once, one that runs within seconds, on its node too."""
    with opened() as home:
        home.operations.cancel(job_id, actor())
        if not wait:
            say(f"Job {job_id} is asked to stop.")
            return
        job = wait_for(home, job_id)
        if job.status is not JobStatus.CANCELLED:
            fail(f"Job {job_id} had {job.status} before it could be stopped.")
        say(f"Job {job_id} is cancelled.")


def row(home: Home, job: Job) -> dict[str, Any]:
    fleet = home.state.fleet()
    environment = fleet.environments.get(job.environment_id) if job.environment_id else None
    node = fleet.nodes.get(job.node_id) if job.node_id else None
    took = (job.finished_at - job.started_at).total_seconds() if job.finished_at and job.started_at else None
    return {
        "id": job.id,
        "job_type": job.job_type,
        "target": environment.key if environment else node and node.slug,
        "status": job.status.value,
        "created_at": job.created_at.isoformat(timespec="seconds"),
        "seconds": took and round(took, 2),
        "error_code": job.error_code,
        "error_message": job.error_message,
    }


def finish(home: Home, job_id: UUID, *, wait: bool, err: bool = False) -> None:
    """Tell the job's id, or how it ended and what of it a person should know; with ``err`` beside an answer."""
    if not wait:
        say(f"Job {job_id} is accepted. `trueup job follow {job_id}` waits for it.")
        return
    job = wait_for(home, job_id, lambda job: say(f"Job {job_id} is {job.status}.", err=True))
    if job.status is not JobStatus.SUCCEEDED:
        fail(f"Job {job_id} {job.status}: {job.error_code}: {job.error_message}")
    took = (job.finished_at - job.created_at).total_seconds() if job.finished_at else 0.0
    say(f"Job {job_id} succeeded in {took:.1f} s.", err=err)
    for note in (job.result or {}).get("notes", ()):
        say(note, err=err)
