"""Every table. The migrations build the same schema; a test holds the two against each other.

Ids of sites, environments and nodes are Git's, so they are no foreign keys, and history may outlive the job
that made it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """An aware UTC datetime, also where the database knows no time zones. A naive one is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError(f"{value!r} has no time zone: records take aware datetimes")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Prose(TypeDecorator[str]):
    """Text from anywhere. NUL and lone surrogates, which no database stores, become the replacement character."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return value.replace("\0", "�").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _json() -> JSON:
    # Not JSONB: it refuses \u0000, which a node may well answer.
    return JSON(none_as_null=True)


def _moment(name: str, *, nullable: bool = True, index: bool = False) -> Column[Any]:
    return Column(name, Moment, nullable=nullable, index=index)


jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("job_type", String, nullable=False),
    Column("status", String, nullable=False),
    Column("site_id", Uuid),
    Column("environment_id", Uuid),
    Column("node_id", Uuid),
    Column("attempt_count", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    _moment("run_after", nullable=False),
    _moment("locked_at"),
    Column("locked_by", Prose),
    _moment("started_at"),
    _moment("finished_at"),
    Column("error_code", String),
    Column("error_message", Prose),
    _moment("created_at", nullable=False),
    _moment("updated_at", nullable=False),
    Column("intent", _json()),
    Column("declared", Boolean, nullable=False),
    Column("revision", String),
    Column("fence", BigInteger),
    _moment("lease_until"),
    _moment("heartbeat_at"),
    Column("cancel_requested", Boolean, nullable=False),
    Column("locks", _json(), nullable=False),
    Column("dedupe_key", String),
    Column("ephemeral", Boolean, nullable=False),
    Column("result", _json()),
    CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="status"),
    Index(None, "status", "created_at", "id"),
    Index(None, "created_at", "id"),
    Index(None, "environment_id", "created_at"),
    Index(None, "site_id", "created_at"),
    Index(None, "node_id", "created_at"),
    Index(
        "uq_jobs_dedupe_key_queued",
        "dedupe_key",
        unique=True,
        sqlite_where=text("status = 'queued'"),
        postgresql_where=text("status = 'queued'"),
    ),
)

locks = Table(
    "locks",
    metadata,
    Column("resource", String, primary_key=True),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("job_id", Uuid, ForeignKey("jobs.id"), nullable=False, index=True),
    Column("fence", BigInteger, nullable=False),
)

fences = Table(
    "fences",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)
"""One row, which the migration inserts: the last fence given out. Claims hold it, so they go one by one."""

admins = Table(
    "admins",
    metadata,
    Column("email", Prose, primary_key=True),
    Column("password_hash", String, nullable=False),
    _moment("created_at", nullable=False),
    _moment("updated_at", nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("email", Prose, nullable=False, index=True),
    Column("source", Prose, nullable=False),
    _moment("created_at", nullable=False),
    _moment("expires_at", nullable=False, index=True),
    _moment("last_seen_at", nullable=False),
)

login_attempts = Table(
    "login_attempts",
    metadata,
    Column("source", Prose, primary_key=True),
    Column("failures", Integer, nullable=False),
    _moment("counted_at", nullable=False),
    _moment("blocked_until", nullable=False),
    _moment("succeeded_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    _moment("at", nullable=False, index=True),
    Column("who", Prose, nullable=False),
    Column("source", Prose, nullable=False),
    Column("operation", String, nullable=False),
    Column("site_id", Uuid, index=True),
    Column("environment_id", Uuid, index=True),
    Column("node_id", Uuid, index=True),
    Column("job_id", Uuid, index=True),
    Column("outcome", String, nullable=False),
    Column("summary", _json(), nullable=False),
)

observations = Table(
    "observations",
    metadata,
    Column("node_id", Uuid, primary_key=True),
    _moment("checked_at", nullable=False),
    Column("observed", Prose),
    _moment("observed_at"),
    _moment("unreachable_since"),
    Column("unreachable_reason", Prose),
)

environment_status = Table(
    "environment_status",
    metadata,
    Column("environment_id", Uuid, primary_key=True),
    Column("status", String, nullable=False),
    Column("reason", Prose),
    Column("job_id", Uuid),
    Column("version", Integer, nullable=False),
    _moment("changed_at", nullable=False),
    CheckConstraint("status IN ('active', 'cloning', 'deploying', 'restoring', 'failed')", name="status"),
)

drift_checks = Table(
    "drift_checks",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("environment_id", Uuid, nullable=False),
    Column("status", String, nullable=False),
    Column("differences", _json(), nullable=False),
    _moment("created_at", nullable=False),
    Column("job_id", Uuid),
    Column("revision", String),
    CheckConstraint("status IN ('clean', 'drifted')", name="status"),
    Index(None, "environment_id", "created_at"),
)

release_health = Table(
    "release_health",
    metadata,
    Column("environment_id", Uuid, primary_key=True),
    Column("release_id", Uuid, primary_key=True),
    Column("health", String, nullable=False),
    Column("found", _json(), nullable=False),
    _moment("checked_at", nullable=False),
    _moment("since", nullable=False),
    Column("alone", Boolean, nullable=False),
    Column("left_for", Uuid),
    CheckConstraint("health IN ('unknown', 'healthy', 'unhealthy')", name="health"),
)

backups = Table(
    "backups",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("environment_id", Uuid, nullable=False),
    Column("backup_scope", String, nullable=False),
    Column("status", String, nullable=False),
    Column("storage_type", String, nullable=False),
    Column("storage_path", String),
    _moment("retention_until"),
    Column("checksum", String),
    Column("size_bytes", BigInteger),
    _moment("created_at", nullable=False),
    _moment("completed_at"),
    Column("content_id", Uuid),
    _moment("drilled_at"),
    Column("drill_status", String),
    Column("drill_error", Prose),
    CheckConstraint("backup_scope IN ('db', 'files', 'full')", name="scope"),
    CheckConstraint("status IN ('pending', 'running', 'completed', 'failed', 'expired')", name="status"),
    CheckConstraint("drill_status IN ('passed', 'failed')", name="drill_status"),
    Index(None, "environment_id", "created_at"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", Prose, nullable=False),
    _moment("until", nullable=False),
)

job_events = Table(
    "job_events",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    _moment("at", nullable=False),
    Column("kind", String, nullable=False),
    Column("data", _json(), nullable=False),
)
"""What happened to a job, numbered from 1; goes with it."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", Prose, primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), index=True),
    Column("answer", _json()),
    _moment("created_at", nullable=False, index=True),
)
"""Requests that were accepted under a key; a job that is forgotten or refused takes its key along."""

tokens = Table(
    "tokens",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("token_sha256", String(64), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("read_only", Boolean, nullable=False),
    Column("created_by", Prose, nullable=False),
    _moment("created_at", nullable=False),
    _moment("expires_at"),
    _moment("last_used_at"),
    _moment("revoked_at"),
)

drift_reports = Table(
    "drift_reports",
    metadata,
    Column("id", Uuid, primary_key=True),
    _moment("created_at", nullable=False),
    Column("trigger", String, nullable=False),
    Column("head", _json(), nullable=False),
    Column("report", _json(), nullable=False),
    CheckConstraint("trigger IN ('schedule', 'request')", name="trigger"),
    Index(None, "created_at", "id"),
)
"""``head``: what a list tells, so that it need not read whole reports."""

report_deliveries = Table(
    "report_deliveries",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("report_id", Uuid, ForeignKey("drift_reports.id", ondelete="CASCADE"), nullable=False),
    Column("target", String(64), nullable=False),
    Column("name", Prose, nullable=False),
    Column("changes", _json(), nullable=False),
    Column("is_first", Boolean, nullable=False),
    Column("status", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    _moment("next_attempt_at", nullable=False),
    Column("claimed_by", Prose),
    _moment("claimed_until"),
    _moment("ended_at"),
    Column("error", Prose),
    _moment("created_at", nullable=False),
    CheckConstraint("status IN ('pending', 'sending', 'sent', 'failed', 'uncertain', 'superseded')", name="status"),
    UniqueConstraint("report_id", "target"),
    Index(None, "status", "next_attempt_at"),
    Index(None, "target", "created_at"),
)
"""What is to be sent of a report, once to each target; a row is claimed by one process for one attempt."""

node_logins = Table(
    "node_logins",
    metadata,
    Column("node_id", Uuid, primary_key=True),
    Column("at", Moment, primary_key=True),
    Column("user", String, primary_key=True),
    Column("address", String, nullable=False),
    Column("key", String),
    Index(None, "at"),
)
"""Whom a node's sshd let in; ``key`` is the fingerprint that they showed."""

announcements = Table(
    "announcements",
    metadata,
    Column("commit", String(40), primary_key=True),
    _moment("taken_at", nullable=False, index=True),
    Column("held", _json()),
    Column("targets", _json()),
    Column("told", _json()),
    Column("sent", _json()),
    Column("request", Integer),
    Column("commented", String(64)),
    Column("is_open", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    _moment("next_attempt_at", nullable=False),
    Column("error", Prose),
)
"""What the forge is to be told of upstream's commits: ``told`` is what holds, ``sent`` what the forge took last."""
