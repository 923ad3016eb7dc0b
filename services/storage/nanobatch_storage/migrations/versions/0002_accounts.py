"""Users that are managed, and their tokens."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
_REQUEST: dict[str, Any] = {
    "postgresql_where": sa.text("request_id is not null"),
    "sqlite_where": sa.text("request_id is not null"),
}


def upgrade() -> None:
    for column in (
        sa.Column(
            "disabled", sa.Boolean(), nullable=False, server_default=sa.false(), comment="none of their tokens works"
        ),
        sa.Column("daily_cap_micros", sa.BigInteger(), comment="most that may be spent in a day; null: no limit"),
        sa.Column("creator_id", _ID, comment="the admin who made them; null: made by the system"),
        sa.Column("request_id", _ID),
        sa.Column("request_hash", sa.String(length=64)),
    ):
        op.add_column("users", column)
    op.create_index("uq_users_request", "users", ["creator_id", "request_id"], unique=True, **_REQUEST)
    op.create_index("ix_users_list", "users", ["create_time", "id"])

    op.create_table(
        "tokens",
        sa.Column("id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column(
            "prefix",
            sa.String(length=16),
            nullable=False,
            comment="the token's first characters, to tell it from others",
        ),
        sa.Column("sha256", sa.String(length=64), nullable=False, comment="of the token, which is kept nowhere"),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True), comment="null: never"),
        sa.Column("revoke_time", sa.DateTime(timezone=True), comment="null: it was not"),
        sa.Column("last_use_time", sa.DateTime(timezone=True), comment="to a minute or two; null: not yet"),
        sa.Column("creator_id", _ID, comment="who made it; null: the operator's, from the environment"),
        sa.Column("request_id", _ID),
        sa.Column("request_hash", sa.String(length=64)),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_tokens_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("sha256", name="uq_tokens_sha256"),
    )
    op.create_index("uq_tokens_request", "tokens", ["creator_id", "request_id"], unique=True, **_REQUEST)
    op.create_index("ix_tokens_list", "tokens", ["user_id", "create_time", "id"])
