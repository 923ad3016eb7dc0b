"""Runs migrations on the connection that ``nanobatch_storage.migrate`` hands over."""

from __future__ import annotations

from alembic import context

from nanobatch_storage.adapters.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
