"""Alembic's entry: runs the migrations on the connection that ``database.migrate`` gives."""

from __future__ import annotations

from alembic import context

from reconciler.records.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("Migrations run through reconciler.records.database.migrate, not through alembic's command.")

context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
