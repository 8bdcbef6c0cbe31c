"""Which content a backup has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Made anew, so that its text is that of a new database.
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table("backups", recreate="always" if is_sqlite else "never") as backups:
        backups.add_column(sa.Column("content_id", sa.Uuid(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("backups") as backups:
        backups.drop_column("content_id")
