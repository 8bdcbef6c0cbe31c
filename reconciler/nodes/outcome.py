"""From what Ansible did to what it means: results by task, counts by host, an error code and a message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from reconciler.core.jobs import JobErrorCode
from reconciler.nodes.redaction import redact, tail

Status = Literal["succeeded", "failed", "cancelled", "timed_out"]
_CODES = {1: "ANSIBLE_PLAY_ERROR", 2: "ANSIBLE_HOST_FAILED", 4: "ANSIBLE_HOST_UNREACHABLE"} | {
    5: "ANSIBLE_SYNTAX_ERROR",
    250: "ANSIBLE_UNEXPECTED_ERROR",
}


@dataclass(frozen=True)
class HostStats:
    """Tasks by how they ended on one host."""

    ok: int = 0
    changed: int = 0
    failed: int = 0
    unreachable: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class TaskResult:
    """What one task gave on one host; ``data`` is its module's own answer, secrets and all."""

    host: str
    task: str
    kind: Literal["ok", "failed", "unreachable"]
    changed: bool
    data: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class RunResult:
    status: Status
    error_code: str | None
    """None when it succeeded or was cancelled."""
    message: str
    """For a person: the first failure, or what was done. Without secrets."""
    hosts: Mapping[str, HostStats]
    results: tuple[TaskResult, ...]
    """In order, without skipped ones."""
    output: str
    """The last 10 KB of what Ansible printed, without secrets."""
    seconds: float
    remote_stopped: bool | None = None
    """Whether the node confirmed that the job's unit is gone; None when there was no need to ask."""

    @property
    def ok(self) -> bool:
        return self.status == "succeeded"

    @property
    def changed(self) -> int:
        return sum(stats.changed for stats in self.hosts.values())

    @property
    def failures(self) -> tuple[TaskResult, ...]:
        return tuple(result for result in self.results if result.kind != "ok")


_OURS = frozenset(JobErrorCode)


@dataclass(frozen=True)
class Progress:
    """How far a run is: a task has begun, or has ended like this. What it answered is no part of it."""

    task: str
    status: Literal["started", "ok", "changed", "failed", "unreachable"]


class Record:
    """Keeps of ansible_runner's events what tells how a run went."""

    def __init__(
        self, on_result: Callable[[TaskResult], None] | None, on_progress: Callable[[Progress], None] | None = None
    ) -> None:
        self.results: list[TaskResult] = []
        self.hosts: dict[str, HostStats] = {}
        self._on_result = on_result
        self._on_progress = on_progress or (lambda _progress: None)

    def __call__(self, event: Mapping[str, Any]) -> bool:
        """False: the event isn't written to a file."""
        data = event.get("event_data", {})
        kind = {"runner_on_ok": "ok", "runner_on_failed": "failed", "runner_on_unreachable": "unreachable"}.get(
            event["event"]
        )
        if kind and not (kind == "failed" and data.get("ignore_errors")):
            self._keep(kind, data)  # type: ignore[arg-type]
        elif event["event"] == "playbook_on_task_start":
            self._on_progress(Progress(_name(data), "started"))
        elif event["event"] == "playbook_on_stats":
            self._count(data)
        return False

    def _keep(self, kind: Literal["ok", "failed", "unreachable"], data: Mapping[str, Any]) -> None:
        answer = data.get("res") or {}
        result = TaskResult(
            host=str(data.get("host", "")),
            task=str(data.get("task", "")),
            kind=kind,
            changed=bool(answer.get("changed")),
            data=answer,
        )
        self.results.append(result)
        self._on_progress(Progress(_name(data), "changed" if kind == "ok" and result.changed else kind))
        if self._on_result:
            self._on_result(result)

    def _count(self, data: Mapping[str, Any]) -> None:
        self.hosts = {
            host: HostStats(
                ok=data["ok"].get(host, 0),
                changed=data["changed"].get(host, 0),
                failed=data["failures"].get(host, 0),
                unreachable=data["dark"].get(host, 0),
                skipped=data["skipped"].get(host, 0),
            )
            for host in data["processed"]
        }


def _name(data: Mapping[str, Any]) -> str:
    return redact(str(data.get("task", "")))[:200]


@dataclass(frozen=True)
class Outcome:
    """From what was seen of a run to what it means."""

    verdict: Literal["cancelled", "timed_out"] | None
    exit: int | None
    wanted: tuple[str, ...]
    record: Record
    timeout_s: float

    @property
    def status(self) -> Status:
        if self.verdict:
            return self.verdict
        return "succeeded" if self.exit == 0 and not self._untouched else "failed"

    @property
    def _untouched(self) -> list[str]:
        return [host for host in self.wanted if host not in self.record.hosts]

    @property
    def _nobody_unreachable(self) -> bool:
        return not any(stats.unreachable for stats in self.record.hosts.values())

    @property
    def _said_code(self) -> str | None:
        """The reason that a module of ours gave with its failure; only those of the registry count."""
        codes = (str(result.data.get("trueup_code")) for result in self.record.results if result.kind == "failed")
        return next((code for code in codes if code in _OURS), None)

    @property
    def error_code(self) -> str | None:
        if self.status in ("succeeded", "cancelled"):
            return None
        if self.status == "timed_out":
            return "ANSIBLE_TIMEOUT"
        if self.exit == 0:
            return "ANSIBLE_UNEXPECTED_ERROR"
        if said := self._said_code:
            return said
        # Ansible exits with 4 for a playbook that it cannot parse, too.
        if self.exit == 4 and self._nobody_unreachable:
            return "ANSIBLE_SYNTAX_ERROR"
        return _CODES.get(self.exit if self.exit is not None else -1, "ANSIBLE_UNKNOWN_EXIT")

    def message(self, output: str) -> str:
        if self.status == "succeeded":
            return f"{sum(stats.changed for stats in self.record.hosts.values())} tasks changed something."
        if self.status == "cancelled":
            return "The run was cancelled and has been stopped."
        if self.status == "timed_out":
            return f"The run did not end within {self.timeout_s:g} s and has been stopped. Look at the node's load."
        failure = next((result for result in self.record.results if result.kind != "ok"), None)
        if failure:
            return f"{failure.host}: {failure.task}: {_said(failure.data)}"
        if self.exit == 0:
            return f"The play did nothing on {', '.join(self._untouched)}: its `hosts` names none of them. Correct it."
        return f"Ansible ended with status {self.exit} before any task failed: {tail(output.strip(), 600)}"


def _said(answer: Mapping[str, Any]) -> str:
    """The most telling text of a failed task's answer."""
    items = [item for item in answer.get("results", ()) if isinstance(item, Mapping) and item.get("failed")]
    for source in (*items, answer):
        parts = [str(source[key]).strip() for key in ("msg", "stderr", "module_stderr") if source.get(key)]
        if parts:
            return tail("\n".join(dict.fromkeys(parts)), 1500)
    return "it failed without a message."
