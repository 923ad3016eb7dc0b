"""Indexes that keep a lease's cost flat: what is active in a column of its own, one index of results per question."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    active = "state in ('PENDING', 'PROCESSING') or processing > 0 or open_attempts > 0"
    # PostgreSQL 15 has stored ones only, SQLite can add virtual ones only.
    op.add_column("executions", sa.Column("active", sa.Boolean(), sa.Computed(active, persisted=postgres)))
    op.drop_index("ix_executions_active", "executions")
    op.create_index("ix_executions_active", "executions", ["bucket_id"], **_where("active"))

    waiting, leased = _where("state = 'PENDING'"), _where("state = 'PROCESSING'")
    op.create_index(
        "ix_results_waiting", "results", ["execution_id", "batch_index", "variation", "ready_at"], **waiting
    )
    op.create_index("ix_results_due", "results", ["execution_id", "ready_at"], **waiting)
    op.create_index("ix_results_leased", "results", ["execution_id", "ready_at"], **leased)
    abandoned = _where("state = 'CANCELLED' and lease_expires_at is not null")
    op.create_index("ix_results_abandoned", "results", ["lease_expires_at"], **abandoned)
    op.drop_index("ix_results_ready", "results")
    if postgres:
        # A few hot rows that change five times a picture: room in their pages lets an update stay there (HOT), and dead
        # rows are cleared away after thousands of updates, not after a fifth of the table.
        op.execute(
            "alter table executions set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02,"
            " autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0)"
        )
        op.execute("alter table buckets set (fillfactor = 50)")
        for table in ("results", "attempts"):
            op.execute(
                f"alter table {table} set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,"
                " autovacuum_analyze_scale_factor = 0.05)"
            )


def downgrade() -> None:
    op.create_index("ix_results_ready", "results", ["execution_id", "ready_at"], **_where("ready_at is not null"))
    for name in ("ix_results_abandoned", "ix_results_leased", "ix_results_due", "ix_results_waiting"):
        op.drop_index(name, "results")
    op.drop_index("ix_executions_active", "executions")
    op.drop_column("executions", "active")
    op.create_index(
        "ix_executions_active",
        "executions",
        ["bucket_id"],
        **_where("state in ('PENDING', 'PROCESSING', 'PAUSED') or open_attempts > 0"),
    )
