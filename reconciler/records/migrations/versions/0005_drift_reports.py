"""Drift reports, what is sent of them, and who logged in on nodes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "drift_reports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trigger", sa.String(), nullable=False),
        sa.Column("head", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("report", sa.JSON(none_as_null=True), nullable=False),
        sa.CheckConstraint("trigger IN ('schedule', 'request')", name=op.f("ck_drift_reports_trigger")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_reports")),
    )
    op.create_index(op.f("ix_drift_reports_created_at_id"), "drift_reports", ["created_at", "id"])
    op.create_table(
        "report_deliveries",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("report_id", sa.Uuid(), nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("changes", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("is_first", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "status IN ('pending', 'sending', 'sent', 'failed', 'uncertain', 'superseded')",
            name=op.f("ck_report_deliveries_status"),
        ),
        sa.ForeignKeyConstraint(
            ["report_id"],
            ["drift_reports.id"],
            name=op.f("fk_report_deliveries_report_id_drift_reports"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_report_deliveries")),
        sa.UniqueConstraint("report_id", "target", name=op.f("uq_report_deliveries_report_id_target")),
    )
    op.create_index(
        op.f("ix_report_deliveries_status_next_attempt_at"), "report_deliveries", ["status", "next_attempt_at"]
    )
    op.create_index(op.f("ix_report_deliveries_target_created_at"), "report_deliveries", ["target", "created_at"])

    op.create_table(
        "node_logins",
        sa.Column("node_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("node_id", "at", "user", name=op.f("pk_node_logins")),
    )
    op.create_index(op.f("ix_node_logins_at"), "node_logins", ["at"])


def downgrade() -> None:
    op.drop_table("node_logins")
    op.drop_table("report_deliveries")
    op.drop_table("drift_reports")
