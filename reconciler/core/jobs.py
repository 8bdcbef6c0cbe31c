"""Jobs: their types, states and error codes, and when a failed one is tried again."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobType(StrEnum):
    """Why a job runs; ``docs/job-types.md`` says what each does."""

    SITE_CREATE = "site-create"
    SITE_IMPORT = "site-import"
    ENVIRONMENT_CREATE = "environment-create"
    DRIFT_CHECK = "drift-check"
    DEPLOY = "deploy"
    UPDATES = "updates"
    RESTORE = "restore"
    PROMOTE = "promote"
    CACHE_UPDATE = "cache-update"
    CACHE_PURGE = "cache-purge"
    BACKUP = "backup"
    DOMAIN_ADD = "domain-add"
    DOMAIN_REMOVE = "domain-remove"
    RECONCILE = "reconcile"
    NODE_PROVISION = "node-provision"
    NODE_OBSERVE = "node-observe"
    HEALTH_CHECK = "health-check"
    ENVIRONMENT_REMOVE = "environment-remove"
    SITE_REMOVE = "site-remove"
    DRIFT_REPORT = "drift-report"
    REPORT_DELIVERY = "report-delivery"
    OPERATOR_RUN = "operator-run"
    DRIFT_ADOPT = "drift-adopt"
    DRIFT_DISCARD = "drift-discard"
    DRILL = "drill"
    SEARCH = "search"
    SEARCH_REPLACE = "search-replace"


GIVES_WAY = frozenset({JobType.DRILL})
"""Jobs for which nobody waits: any other goes before them, and has them stop where they keep it from its locks."""


class JobErrorCode(StrEnum):
    """Why a job failed; ``docs/error-codes.md`` says what to do."""

    ANSIBLE_PLAY_ERROR = "ANSIBLE_PLAY_ERROR"
    ANSIBLE_HOST_FAILED = "ANSIBLE_HOST_FAILED"
    ANSIBLE_HOST_UNREACHABLE = "ANSIBLE_HOST_UNREACHABLE"
    ANSIBLE_SYNTAX_ERROR = "ANSIBLE_SYNTAX_ERROR"
    ANSIBLE_TIMEOUT = "ANSIBLE_TIMEOUT"
    ANSIBLE_UNEXPECTED_ERROR = "ANSIBLE_UNEXPECTED_ERROR"
    ANSIBLE_UNKNOWN_EXIT = "ANSIBLE_UNKNOWN_EXIT"
    JOB_TIMEOUT = "JOB_TIMEOUT"
    JOB_LEASE_LOST = "JOB_LEASE_LOST"
    JOB_CONFLICT = "JOB_CONFLICT"
    JOB_INTERNAL_ERROR = "JOB_INTERNAL_ERROR"
    UPSTREAM_CONFLICT = "UPSTREAM_CONFLICT"
    TARGET_MISSING = "TARGET_MISSING"
    DOCUMENT_STALLED = "DOCUMENT_STALLED"
    NODE_ON_HOLD = "NODE_ON_HOLD"
    ARTIFACT_UNAVAILABLE = "ARTIFACT_UNAVAILABLE"
    NOT_CONVERGED = "NOT_CONVERGED"
    PLAN_BLOCKED = "PLAN_BLOCKED"
    CONTENT_UNMOVABLE = "CONTENT_UNMOVABLE"
    CONTENT_TOO_LARGE = "CONTENT_TOO_LARGE"
    DATABASE_UNUSABLE = "DATABASE_UNUSABLE"
    CONTENT_SPENT = "CONTENT_SPENT"
    SEARCH_REFUSED = "SEARCH_REFUSED"
    SEARCH_TABLE_MISSING = "SEARCH_TABLE_MISSING"
    SEARCH_NO_ROOM = "SEARCH_NO_ROOM"
    BACKUP_FAILED = "BACKUP_FAILED"
    BACKUP_DAMAGED = "BACKUP_DAMAGED"
    DRILL_FAILED = "DRILL_FAILED"
    DRILL_NO_ROOM = "DRILL_NO_ROOM"
    DRILL_UNDECIDED = "DRILL_UNDECIDED"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    SOURCE_REFUSED = "SOURCE_REFUSED"
    SOURCE_UNAVAILABLE = "SOURCE_UNAVAILABLE"
    SOURCE_UNUSABLE = "SOURCE_UNUSABLE"
    SOURCE_INCOMPLETE = "SOURCE_INCOMPLETE"
    ARCHIVE_INVALID = "ARCHIVE_INVALID"
    ARCHIVE_UNSAFE = "ARCHIVE_UNSAFE"
    ARCHIVE_TOO_LARGE = "ARCHIVE_TOO_LARGE"
    ARCHIVE_BOMB = "ARCHIVE_BOMB"
    ARCHIVE_INCOMPLETE = "ARCHIVE_INCOMPLETE"
    IMPORT_URL_REFUSED = "IMPORT_URL_REFUSED"
    IMPORT_DOWNLOAD_FAILED = "IMPORT_DOWNLOAD_FAILED"
    IMPORT_DATABASE_REFUSED = "IMPORT_DATABASE_REFUSED"
    IMPORT_NO_ROOM = "IMPORT_NO_ROOM"
    RELEASE_UNHEALTHY = "RELEASE_UNHEALTHY"
    ENVIRONMENT_UNHEALTHY = "ENVIRONMENT_UNHEALTHY"
    DRIFT_GATE_UNMET = "DRIFT_GATE_UNMET"
    BACKUP_GATE_UNMET = "BACKUP_GATE_UNMET"
    DRILL_GATE_UNMET = "DRILL_GATE_UNMET"
    PROMOTION_CONFLICT = "PROMOTION_CONFLICT"
    PROMOTION_ELSEWHERE = "PROMOTION_ELSEWHERE"
    PROMOTION_NO_ROOM = "PROMOTION_NO_ROOM"
    BASELINE_MISSING = "BASELINE_MISSING"
    UPDATE_UNAVAILABLE = "UPDATE_UNAVAILABLE"
    UPDATE_UNTRUSTED = "UPDATE_UNTRUSTED"
    UPDATE_UNHEALTHY = "UPDATE_UNHEALTHY"
    DISCARD_IMPOSSIBLE = "DISCARD_IMPOSSIBLE"
    OPTION_REFUSED = "OPTION_REFUSED"
    DNS_ELSEWHERE = "DNS_ELSEWHERE"
    DNS_UNAVAILABLE = "DNS_UNAVAILABLE"
    CERTIFICATE_FAILED = "CERTIFICATE_FAILED"


RETRIED = frozenset(
    {
        JobErrorCode.ANSIBLE_PLAY_ERROR,
        JobErrorCode.ANSIBLE_HOST_FAILED,
        JobErrorCode.ANSIBLE_HOST_UNREACHABLE,
        JobErrorCode.ANSIBLE_TIMEOUT,
        JobErrorCode.DRILL_UNDECIDED,
        JobErrorCode.STORAGE_UNAVAILABLE,
    }
)
"""Error codes that another attempt may mend; any other failure is final."""

CERTIFYING = frozenset({JobErrorCode.DNS_ELSEWHERE, JobErrorCode.DNS_UNAVAILABLE, JobErrorCode.CERTIFICATE_FAILED})
"""A name got no certificate. All else was applied, and when one is asked for again is decided for each name."""

RETRY_DELAYS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15))
"""How long to wait after the first, second, third failed attempt; the last also after any later one."""

MAX_ATTEMPTS = 3
