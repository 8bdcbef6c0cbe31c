"""Every error that Trueup raises on purpose, with its stable code. The codes stand in ``docs/error-codes.md``."""

from __future__ import annotations

from typing import ClassVar

from reconciler.core.jobs import JobErrorCode


class TrueupError(Exception):
    """The thing, the fact, the next step: the message is written for a person."""

    code: ClassVar[str] = "internal_error"

    @property
    def message(self) -> str:
        return str(self)


class Invalid(TrueupError):
    """The request or document cannot mean anything."""

    code = "invalid_request"


class Unauthorized(TrueupError):
    code = "unauthorized"


class TooManyAttempts(TrueupError):
    """Logins are slowed; ``retry_after_s`` says for how long."""

    code = "too_many_attempts"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotFound(TrueupError):
    code = "not_found"


class Conflict(TrueupError):
    """The request is well-formed but cannot go together with what is there."""

    code = "conflict"


class NoNodeAvailable(Conflict):
    code = "no_node_available"


class EnvironmentNotActive(Conflict):
    code = "environment_not_active"


class EnvironmentNotFailed(Conflict):
    """Only what failed can be reset."""

    code = "environment_not_failed"


class IdempotencyKeyInUse(Conflict):
    """The first request with this key is still being worked on."""

    code = "idempotency_key_in_use"


class IdempotencyKeyReused(TrueupError):
    """The key was sent with another request before."""

    code = "idempotency_key_reused"


class PreconditionFailed(TrueupError):
    """What ``If-Match`` names is not as the client saw it."""

    code = "precondition_failed"


class ReadOnlyToken(TrueupError):
    """The token may look, and do nothing."""

    code = "read_only_token"


class WpCliError(TrueupError):
    """WordPress's own tool failed on the node."""

    code = "wp_cli_error"


class StorageNotConfigured(Conflict):
    """The operation begins with a backup, and there is nowhere to put it."""

    code = "storage_not_configured"


class SourceRefused(Conflict):
    """Code may not be fetched from there: the form, the transport or the host is not allowed."""

    code = "source_refused"


class SourceUnavailable(Conflict):
    """Code cannot be had from there now: the host does not answer, or has no such reference."""

    code = "source_unavailable"


class DriftGateUnmet(Conflict):
    """A promotion's source was not checked since it last changed, or both sides changed the same."""

    code = "drift_gate_unmet"


class BackupGateUnmet(Conflict):
    """A promotion's target has no full backup of the last hour."""

    code = "backup_gate_unmet"


class DrillGateUnmet(Conflict):
    """A promotion's target has to have a recent drill of a backup that passed, and has none."""

    code = "drill_gate_unmet"


class StorageError(TrueupError):
    """The storage of backups did not do what was asked of it."""

    code = "storage_error"


class ObjectUnusable(StorageError):
    """What the storage has under a key is not what was put there, or is gone: it answered, and is sure."""


class NodeUnreachable(TrueupError):
    code = "node_unreachable"


class UploadTooLarge(TrueupError):
    """More than this control plane takes."""

    code = "upload_too_large"


class DiskFull(TrueupError):
    """This host has no room; nothing was kept."""

    code = "disk_full"


class UnsafePlan(TrueupError):
    """The plan would do more harm than its limits allow."""

    code = "unsafe_plan"


class StoreError(TrueupError):
    """The store could not be read or written; what was there is unchanged."""

    code = "store_error"


class HeadMoved(StoreError):
    """Somebody else committed first; evaluate the intent again."""

    code = "store_head_moved"


class UpstreamUnreachable(TrueupError):
    """The repository that the store follows didn't answer. Work goes on here; the next look catches up."""

    code = "upstream_unreachable"


class UpstreamHeld(TrueupError):
    """What the followed repository has is not applied before a person has looked; ``reason`` is one word for it."""

    code = "upstream_held"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LateFence(TrueupError):
    """Another worker has the job by now; this one's result is not wanted."""

    code = "late_fence"


class ArtifactError(TrueupError):
    """An archive could not be fetched or is not what its pin says."""

    code = "artifact_error"


class RecordsError(TrueupError):
    """The database could not be read or written."""

    code = "records_error"


class JobError(TrueupError):
    """A job cannot go on, for a reason that the registry of job errors knows."""

    code = "job_error"

    def __init__(self, job_code: JobErrorCode, message: str) -> None:
        super().__init__(message)
        self.job_code = job_code
