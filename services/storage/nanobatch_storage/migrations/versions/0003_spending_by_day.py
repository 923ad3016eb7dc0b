"""What a user has spent in a day, found by index."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_attempts_day", "attempts", ["user_id", "start_time"])
