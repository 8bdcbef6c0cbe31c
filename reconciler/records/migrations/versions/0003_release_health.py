"""Health of releases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "release_health",
        sa.Column("environment_id", sa.Uuid(), nullable=False),
        sa.Column("release_id", sa.Uuid(), nullable=False),
        sa.Column("health", sa.String(), nullable=False),
        sa.Column("found", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("alone", sa.Boolean(), nullable=False),
        sa.Column("left_for", sa.Uuid(), nullable=True),
        sa.CheckConstraint("health IN ('unknown', 'healthy', 'unhealthy')", name=op.f("ck_release_health_health")),
        sa.PrimaryKeyConstraint("environment_id", "release_id", name=op.f("pk_release_health")),
    )


def downgrade() -> None:
    op.drop_table("release_health")
