"""The first schema."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


_ID = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


def upgrade() -> None:
    op.create_table(
        "buckets",
        sa.Column("id", _ID, nullable=False),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("window", sa.Float(), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True)),
        sa.Column("cooldown_until", sa.DateTime(timezone=True)),
        sa.Column("cooldown_reason", sa.String(length=16)),
        sa.Column("rate_limits", sa.Integer(), nullable=False, comment="429 answers since the last success"),
        sa.Column("overloads", sa.Integer(), nullable=False, comment="503 answers since the last success"),
        sa.Column("cut_at", sa.DateTime(timezone=True), comment="when the window was last cut"),
        sa.PrimaryKeyConstraint("id", name="pk_buckets"),
        sa.UniqueConstraint("fingerprint", "model", name="uq_buckets_fingerprint_model"),
    )
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("record", _JSON, nullable=False, comment="{encrypted, iv, authTag, salt, keyId, version}"),
        sa.PrimaryKeyConstraint("name", name="pk_secrets"),
    )
    op.create_table(
        "users",
        sa.Column("id", _ID, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("execution_id", _ID, nullable=False),
        sa.Column("result_id", _ID, nullable=False),
        sa.Column("bucket_id", _ID, nullable=False),
        sa.Column("job_id", _ID),
        sa.Column("lease_id", _ID, nullable=False, comment="one call per lease at most"),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("reserved_micros", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "answer_time",
            sa.DateTime(timezone=True),
            comment="when the call had ended; the picture may still be finished",
        ),
        sa.Column("end_time", sa.DateTime(timezone=True)),
        sa.Column(
            "outcome",
            sa.String(length=16),
            nullable=False,
            comment="COMPLETED, a failure class, CRASHED, RELEASED; empty while open",
        ),
        sa.Column("charged", sa.String(length=8), comment="null while open"),
        sa.Column("cost_micros", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("text_output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("image_output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("usage_reported", sa.Boolean(), nullable=False),
        sa.Column("provider_status", sa.String(length=64), nullable=False),
        sa.Column("provider_response_id", sa.String(length=255), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=False),
        sa.Column("processing_ms", sa.Integer()),
        sa.ForeignKeyConstraint(["bucket_id"], ["buckets.id"], name="fk_attempts_bucket_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_attempts_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.UniqueConstraint("lease_id", name="uq_attempts_lease_id"),
    )
    op.create_index("ix_attempts_latency", "attempts", ["model", "end_time"], **_where("outcome = 'COMPLETED'"))
    op.create_index("ix_attempts_open", "attempts", ["execution_id"], **_where("charged is null"))
    op.create_index("ix_attempts_result", "attempts", ["result_id"])

    op.create_table(
        "credentials",
        sa.Column("id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column(
            "saved",
            sa.Boolean(),
            nullable=False,
            comment="kept for later runs; an unsaved one is wiped with its execution",
        ),
        sa.Column("record", _JSON, comment="{encrypted, iv, authTag, salt, keyId, version}; null once wiped"),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_credentials_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_credentials"),
    )
    op.create_index("ix_credentials_user_id", "credentials", ["user_id"])

    op.create_table(
        "images",
        sa.Column("id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("execution_id", _ID, comment="the execution that made it; null for uploads"),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("mime_type", sa.String(length=64), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("blob_path", sa.String(length=255), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "expire_time", sa.DateTime(timezone=True), comment="an upload goes then unless an execution has used it"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_images_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_images"),
    )
    op.create_index("ix_images_execution_id", "images", ["execution_id"])
    op.create_index("ix_images_expire", "images", ["expire_time"], **_where("expire_time is not null"))
    op.create_index("ix_images_user_id", "images", ["user_id"])

    op.create_table(
        "workflows",
        sa.Column("id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("config", _JSON, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_workflows_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_workflows"),
    )
    op.create_index("uq_workflows_default", "workflows", ["user_id"], unique=True, **_where("is_default"))

    op.create_table(
        "executions",
        sa.Column("id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("workflow_id", _ID, nullable=False),
        sa.Column("parent_execution_id", _ID),
        sa.Column("request_id", _ID),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("pause_reason", sa.String(length=16)),
        sa.Column("resume_time", sa.DateTime(timezone=True)),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("settings", _JSON, nullable=False),
        sa.Column("labels", _JSON, nullable=False),
        sa.Column("credential_id", _ID),
        sa.Column("bucket_id", _ID, nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("pending", sa.Integer(), nullable=False),
        sa.Column("processing", sa.Integer(), nullable=False),
        sa.Column("completed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("cancelled", sa.Integer(), nullable=False),
        sa.Column("open_attempts", sa.Integer(), nullable=False),
        sa.Column("finishing", sa.Integer(), nullable=False, comment="open attempts whose call has ended"),
        sa.Column("cost_micros", sa.BigInteger(), nullable=False),
        sa.Column("uncertain_micros", sa.BigInteger(), nullable=False),
        sa.Column("reserved_micros", sa.BigInteger(), nullable=False, comment="worst case of what is leased or out"),
        sa.Column("reservation_micros", sa.BigInteger(), nullable=False, comment="worst case of one call"),
        sa.Column("estimated_cost_micros", sa.BigInteger(), nullable=False),
        sa.Column("max_cost_micros", sa.BigInteger()),
        sa.Column("revision", sa.BigInteger(), nullable=False, comment="highest one given out"),
        sa.Column("own_revision", sa.BigInteger(), nullable=False, comment="that of this row"),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("start_time", sa.DateTime(timezone=True)),
        sa.Column("end_time", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["bucket_id"], ["buckets.id"], name="fk_executions_bucket_id"),
        sa.ForeignKeyConstraint(["credential_id"], ["credentials.id"], name="fk_executions_credential_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_executions_user_id"),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.id"], name="fk_executions_workflow_id"),
        sa.PrimaryKeyConstraint("id", name="pk_executions"),
    )
    op.create_index(
        "ix_executions_active",
        "executions",
        ["bucket_id"],
        **_where("state in ('PENDING', 'PROCESSING', 'PAUSED') or open_attempts > 0"),
    )
    op.create_index("ix_executions_list", "executions", ["user_id", "create_time", "id"])
    op.create_index(
        "uq_executions_request",
        "executions",
        ["user_id", "request_id"],
        unique=True,
        **_where("request_id is not null"),
    )

    op.create_table(
        "jobs",
        sa.Column("id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("execution_id", _ID, nullable=False),
        sa.Column("credential_id", _ID),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column(
            "task_id",
            sa.String(length=255),
            nullable=False,
            comment="the provider's own id, stored the moment it is known",
        ),
        sa.Column(
            "poll_at", sa.DateTime(timezone=True), comment="when it may be leased for polling; null: it has ended"
        ),
        sa.Column("lease_id", _ID),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True)),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["credential_id"], ["credentials.id"], name="fk_jobs_credential_id"),
        sa.ForeignKeyConstraint(["execution_id"], ["executions.id"], name="fk_jobs_execution_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_jobs_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("provider", "task_id", name="uq_jobs_provider_task_id"),
    )
    op.create_index("ix_jobs_execution_id", "jobs", ["execution_id"])

    op.create_table(
        "retry_requests",
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("request_id", _ID, nullable=False),
        sa.Column("execution_id", _ID, nullable=False),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("retried", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["executions.id"], name="fk_retry_requests_execution_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_retry_requests_user_id"),
        sa.PrimaryKeyConstraint("user_id", "request_id", name="pk_retry_requests"),
    )
    op.create_table(
        "results",
        sa.Column("id", _ID, nullable=False),
        sa.Column("execution_id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("batch_index", sa.Integer(), nullable=False),
        sa.Column("variation", sa.Integer(), nullable=False),
        sa.Column("prompt_text", sa.Text(), nullable=False),
        sa.Column("source_image_id", _ID),
        sa.Column("reference_image_ids", _JSON, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column(
            "ready_at",
            sa.DateTime(timezone=True),
            comment="when it may be leased: its lease's expiry while one is held; null: never",
        ),
        sa.Column("lease_id", _ID, comment="fencing token, new at every lease; an expiry does not clear it"),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True)),
        sa.Column(
            "reserved_micros", sa.BigInteger(), nullable=False, comment="reserved by the lease; moves to the attempt"
        ),
        sa.Column("job_id", _ID),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="calls that have ended"),
        sa.Column("failures", sa.Integer(), nullable=False, comment="those that count against max_attempts"),
        sa.Column("unknowns", sa.Integer(), nullable=False),
        sa.Column("damaged", sa.Integer(), nullable=False),
        sa.Column("empties", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False, comment="leases lost with an open attempt"),
        sa.Column("overloads", sa.Integer(), nullable=False),
        sa.Column("overloaded_since", sa.DateTime(timezone=True)),
        sa.Column("image_id", _ID),
        sa.Column("master_image_id", _ID),
        sa.Column("thumbnail_image_id", _ID),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("mime_type", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=False),
        sa.Column("error_message", sa.Text(), nullable=False),
        sa.Column("error_retryable", sa.Boolean(), nullable=False),
        sa.Column("error_charged", sa.String(length=8)),
        sa.Column("processing_ms", sa.Integer()),
        sa.Column("cost_micros", sa.BigInteger(), nullable=False),
        sa.Column("uncertain_micros", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["executions.id"], name="fk_results_execution_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_results_job_id", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_results_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_results"),
        sa.UniqueConstraint(
            "execution_id", "batch_index", "variation", name="uq_results_execution_id_batch_index_variation"
        ),
    )
    op.create_index("ix_results_ready", "results", ["execution_id", "ready_at"], **_where("ready_at is not null"))
    op.create_index("ix_results_revision", "results", ["execution_id", "revision"])


def downgrade() -> None:
    for table in (
        "results",
        "retry_requests",
        "jobs",
        "executions",
        "workflows",
        "images",
        "credentials",
        "attempts",
        "users",
        "secrets",
        "buckets",
    ):
        op.drop_table(table)
