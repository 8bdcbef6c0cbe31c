"""Which backups were tried, and how that went."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Made anew, so that its text is that of a new database.
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table("backups", recreate="always" if is_sqlite else "never") as backups:
        backups.add_column(sa.Column("drilled_at", sa.DateTime(timezone=True), nullable=True))
        backups.add_column(sa.Column("drill_status", sa.String(), nullable=True))
        backups.add_column(sa.Column("drill_error", sa.Text(), nullable=True))
        backups.create_check_constraint(op.f("ck_backups_drill_status"), "drill_status IN ('passed', 'failed')")


def downgrade() -> None:
    with op.batch_alter_table("backups") as backups:
        backups.drop_constraint(op.f("ck_backups_drill_status"))
        for name in ("drill_error", "drill_status", "drilled_at"):
            backups.drop_column(name)
