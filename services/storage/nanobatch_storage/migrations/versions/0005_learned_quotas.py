"""What a bucket learns of its provider's quota."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("threshold", sa.Float(), comment="where the window grows back to quickly after a cut"),
        sa.Column("rate", sa.Float(), nullable=False, server_default="50", comment="starts a second"),
        sa.Column(
            "rate_calls", sa.Integer(), nullable=False, server_default="0", comment="calls the rate was measured by"
        ),
        sa.Column(
            "refused_at",
            sa.DateTime(timezone=True),
            comment="when the latest 429s were learned from; null: never refused",
        ),
        sa.Column("quota_calls", sa.Integer(), comment="calls a period, where the quota is one of periods"),
        sa.Column("quota_period", sa.Float(), comment="seconds; null: not known yet"),
        sa.Column("quota_from", sa.DateTime(timezone=True), comment="when a period began or will"),
    ):
        op.add_column("buckets", column)
    op.create_index("ix_attempts_bucket", "attempts", ["bucket_id", "start_time"])


def downgrade() -> None:
    op.drop_index("ix_attempts_bucket", "attempts")
    for name in ("quota_from", "quota_period", "quota_calls", "refused_at", "rate_calls", "rate", "threshold"):
        op.drop_column("buckets", name)
