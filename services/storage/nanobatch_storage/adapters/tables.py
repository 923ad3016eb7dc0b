"""The schema. Column names of executions, results, attempts and buckets are the fields of the domain's dataclasses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    BindParameter,
    Boolean,
    Column,
    ColumnElement,
    Computed,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    false,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: ``timestamptz`` on PostgreSQL, UTC text of fixed width (so that it sorts) on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times: they would be read in somebody's local zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            message = "a time without a zone"
            raise ValueError(message)
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Json = JSON().with_variant(JSONB(), "postgresql")
_NullableJson = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


# SQLite has no type for it: text as everybody writes it costs no conversion, and can be asked for by hand.
_ID = Uuid(as_uuid=False).with_variant(String(36), "sqlite")


def _id(name: str = "id", *args: Any, **options: Any) -> Column[str]:
    return Column(name, _ID, *args, **options)


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


_ACTIVE = "state in ('PENDING', 'PROCESSING') or processing > 0 or open_attempts > 0"
_PENDING, _PROCESSING = "state = 'PENDING'", "state = 'PROCESSING'"
_ABANDONED = "state = 'CANCELLED' and lease_expires_at is not null"

users = Table(
    "users",
    metadata,
    _id(primary_key=True),
    Column("role", String(16), nullable=False),
    Column("name", String(255), nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("disabled", Boolean, nullable=False, server_default=false(), comment="none of their tokens works"),
    Column("daily_cap_micros", BigInteger, comment="most that may be spent in a day; null: no limit"),
    _id("creator_id", comment="the admin who made them; null: made by the system"),
    _id("request_id"),
    Column("request_hash", String(64)),
    Index("uq_users_request", "creator_id", "request_id", unique=True, **_where("request_id is not null")),
    Index("ix_users_list", "create_time", "id"),
)

tokens = Table(
    "tokens",
    metadata,
    _id(primary_key=True),
    _id("user_id", ForeignKey("users.id"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("prefix", String(16), nullable=False, comment="the token's first characters, to tell it from others"),
    Column("sha256", String(64), nullable=False, unique=True, comment="of the token, which is kept nowhere"),
    Column("create_time", UtcDateTime, nullable=False),
    Column("expire_time", UtcDateTime, comment="null: never"),
    Column("revoke_time", UtcDateTime, comment="null: it was not"),
    Column("last_use_time", UtcDateTime, comment="to a minute or two; null: not yet"),
    _id("creator_id", comment="who made it; null: the operator's, from the environment"),
    _id("request_id"),
    Column("request_hash", String(64)),
    Index("uq_tokens_request", "creator_id", "request_id", unique=True, **_where("request_id is not null")),
    Index("ix_tokens_list", "user_id", "create_time", "id"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("record", _Json, nullable=False, comment="{encrypted, iv, authTag, salt, keyId, version}"),
)

workflows = Table(
    "workflows",
    metadata,
    _id(primary_key=True),
    _id("user_id", ForeignKey("users.id"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("is_default", Boolean, nullable=False),
    Column("config", _Json, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Index("uq_workflows_default", "user_id", unique=True, **_where("is_default")),
)

credentials = Table(
    "credentials",
    metadata,
    _id(primary_key=True),
    _id("user_id", ForeignKey("users.id"), nullable=False, index=True),
    Column("provider", String(32), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("saved", Boolean, nullable=False, comment="kept for later runs; an unsaved one is wiped with its execution"),
    Column("record", _NullableJson, comment="{encrypted, iv, authTag, salt, keyId, version}; null once wiped"),
    Column("create_time", UtcDateTime, nullable=False),
)

buckets = Table(
    "buckets",
    metadata,
    _id(primary_key=True),
    Column("provider", String(32), nullable=False),
    Column("model", String(128), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("window", Float, nullable=False),
    Column("confirmed_at", UtcDateTime),
    Column("cooldown_until", UtcDateTime),
    Column("cooldown_reason", String(16)),
    Column("rate_limits", Integer, nullable=False, comment="429 answers since the last success"),
    Column("overloads", Integer, nullable=False, comment="503 answers since the last success"),
    Column("cut_at", UtcDateTime, comment="when the window was last cut"),
    Column("threshold", Float, comment="where the window grows back to quickly after a cut"),
    Column("rate", Float, nullable=False, server_default="50", comment="starts a second"),
    Column("rate_calls", Integer, nullable=False, server_default="0", comment="calls the rate was measured by"),
    Column("refused_at", UtcDateTime, comment="when the latest 429s were learned from; null: never refused"),
    Column("quota_calls", Integer, comment="calls a period, where the quota is one of periods"),
    Column("quota_period", Float, comment="seconds; null: not known yet"),
    Column("quota_from", UtcDateTime, comment="when a period began or will"),
    UniqueConstraint("fingerprint", "model"),
)

executions = Table(
    "executions",
    metadata,
    _id(primary_key=True),
    _id("user_id", ForeignKey("users.id"), nullable=False),
    _id("workflow_id", ForeignKey("workflows.id"), nullable=False),
    _id("parent_execution_id"),
    _id("request_id"),
    Column("request_hash", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("pause_reason", String(16)),
    Column("resume_time", UtcDateTime),
    Column("cancel_requested", Boolean, nullable=False),
    Column("model", String(128), nullable=False),
    Column("provider", String(32), nullable=False),
    Column("mode", String(16), nullable=False),
    Column("settings", _Json, nullable=False),
    Column("labels", _Json, nullable=False),
    _id("credential_id", ForeignKey("credentials.id")),
    _id("bucket_id", ForeignKey("buckets.id"), nullable=False),
    Column("total", Integer, nullable=False),
    Column("pending", Integer, nullable=False),
    Column("processing", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("open_attempts", Integer, nullable=False),
    Column("finishing", Integer, nullable=False, comment="open attempts whose call has ended"),
    Column("cost_micros", BigInteger, nullable=False),
    Column("uncertain_micros", BigInteger, nullable=False),
    Column("reserved_micros", BigInteger, nullable=False, comment="worst case of what is leased or out"),
    Column("reservation_micros", BigInteger, nullable=False, comment="worst case of one call"),
    Column("estimated_cost_micros", BigInteger, nullable=False),
    Column("max_cost_micros", BigInteger),
    Column("revision", BigInteger, nullable=False, comment="highest one given out"),
    Column("own_revision", BigInteger, nullable=False, comment="that of this row"),
    Column("create_time", UtcDateTime, nullable=False),
    Column("start_time", UtcDateTime),
    Column("end_time", UtcDateTime),
    Column("origin_request_id", String(64), comment="id in the logs of the call that made it; not the client's"),
    Column("origin_traceparent", String(64), comment="W3C trace context of that call; null: it was not traced"),
    Column(
        "first_pending", Integer, nullable=False, server_default="0", comment="none pending has a lower batch_index"
    ),
    # Computed, so that the index over it changes with this one value and not with the counters beneath.
    Column("active", Boolean, Computed(_ACTIVE)),
    Index("uq_executions_request", "user_id", "request_id", unique=True, **_where("request_id is not null")),
    Index("ix_executions_list", "user_id", "create_time", "id"),
    # What SQLite's ``active_executions`` is made of; on PostgreSQL the version before looks by it.
    Index("ix_executions_active", "bucket_id", **_where("active")),
    Index("ix_executions_resume", "resume_time", **_where("resume_time is not null")),
)

# Kept by the database, and never written from here: who may have calls out or to come (docs/adr/0024). The lease looks at
# these only: its cost grows with them, not with the results that wait in them, nor with what has ended.
_derived = MetaData()
active_executions = Table(
    "active_executions",
    _derived,
    _id("execution_id", primary_key=True),
    _id("bucket_id", nullable=False),
    _id("user_id", nullable=False),
)
live_executions = Table(
    "live_executions",
    _derived,
    *(
        Column(column.name, column.type, primary_key=column.primary_key)
        for column in executions.c
        if column.name
        in {
            "id", "user_id", "bucket_id", "state", "pending", "processing", "open_attempts", "finishing",
            "reserved_micros", "create_time", "first_pending",
        }
    ),
)  # fmt: skip
"""Their newest rows, as far as the queue looks at them."""
ROW_KEY, EPOCH = literal_column("executions.row_key", _ID), literal_column("executions.epoch", BigInteger)
"""On PostgreSQL the id once more, and the number of sixteen revisions: ``ix_executions_newest`` is by both."""


def epoch_of(revision: BindParameter[int]) -> ColumnElement[int]:
    """Return the epoch of a revision."""
    return revision // literal_column("16", BigInteger)


retry_requests = Table(
    "retry_requests",
    metadata,
    _id("user_id", ForeignKey("users.id"), primary_key=True),
    _id("request_id", primary_key=True),
    _id("execution_id", ForeignKey("executions.id", ondelete="CASCADE"), nullable=False),
    Column("request_hash", String(64), nullable=False),
    Column("retried", Integer, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    _id(primary_key=True),
    _id("user_id", ForeignKey("users.id"), nullable=False),
    _id("execution_id", ForeignKey("executions.id", ondelete="CASCADE"), nullable=False, index=True),
    _id("credential_id", ForeignKey("credentials.id")),
    Column("provider", String(32), nullable=False),
    Column("task_id", String(255), nullable=False, comment="the provider's own id, stored the moment it is known"),
    Column("poll_at", UtcDateTime, comment="when it may be leased for polling; null: it has ended"),
    _id("lease_id"),
    Column("lease_expires_at", UtcDateTime),
    Column("create_time", UtcDateTime, nullable=False),
    UniqueConstraint("provider", "task_id"),
)

results = Table(
    "results",
    metadata,
    _id(primary_key=True),
    _id("execution_id", ForeignKey("executions.id", ondelete="CASCADE"), nullable=False),
    _id("user_id", ForeignKey("users.id"), nullable=False),
    Column("batch_index", Integer, nullable=False),
    Column("variation", Integer, nullable=False),
    Column("prompt_text", Text, nullable=False),
    _id("source_image_id"),
    Column("reference_image_ids", _Json, nullable=False),
    Column("state", String(16), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("ready_at", UtcDateTime, comment="when it may be leased: its lease's expiry while one is held; null: never"),
    _id("lease_id", comment="fencing token, new at every lease; an expiry does not clear it"),
    Column("lease_expires_at", UtcDateTime),
    Column("reserved_micros", BigInteger, nullable=False, comment="reserved by the lease; moves to the attempt"),
    _id("job_id", ForeignKey("jobs.id", ondelete="SET NULL")),
    Column("attempts", Integer, nullable=False, comment="calls that have ended"),
    Column("failures", Integer, nullable=False, comment="those that count against max_attempts"),
    Column("unknowns", Integer, nullable=False),
    Column("damaged", Integer, nullable=False),
    Column("empties", Integer, nullable=False),
    Column("crashes", Integer, nullable=False, comment="leases lost with an open attempt"),
    Column("overloads", Integer, nullable=False),
    Column("overloaded_since", UtcDateTime),
    _id("image_id"),
    _id("master_image_id"),
    _id("thumbnail_image_id"),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("mime_type", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("error_code", String(64), nullable=False),
    Column("error_message", Text, nullable=False),
    Column("error_retryable", Boolean, nullable=False),
    Column("error_charged", String(8)),
    Column("processing_ms", Integer),
    Column("cost_micros", BigInteger, nullable=False),
    Column("uncertain_micros", BigInteger, nullable=False),
    UniqueConstraint("execution_id", "batch_index", "variation"),
    # One for each question that a lease asks: which is next, when is one due, which lease runs out first.
    Index("ix_results_waiting", "execution_id", "batch_index", "variation", "ready_at", **_where(_PENDING)),
    Index("ix_results_due", "execution_id", "ready_at", **_where(_PENDING)),
    Index("ix_results_leased", "execution_id", "ready_at", **_where(_PROCESSING)),
    Index("ix_results_abandoned", "lease_expires_at", **_where(_ABANDONED)),
    Index("ix_results_revision", "execution_id", "revision"),
)

# The ledger outlives executions: what was spent stays spent when they are deleted.
attempts = Table(
    "attempts",
    metadata,
    _id(primary_key=True),
    _id("user_id", ForeignKey("users.id"), nullable=False),
    _id("execution_id", nullable=False),
    _id("result_id", nullable=False),
    _id("bucket_id", ForeignKey("buckets.id"), nullable=False),
    _id("job_id"),
    _id("lease_id", nullable=False, unique=True, comment="one call per lease at most"),
    Column("model", String(128), nullable=False),
    Column("reserved_micros", BigInteger, nullable=False),
    Column("start_time", UtcDateTime, nullable=False),
    Column("answer_time", UtcDateTime, comment="when the call had ended; the picture may still be finished"),
    Column("end_time", UtcDateTime),
    Column(
        "outcome", String(16), nullable=False, comment="COMPLETED, a failure class, CRASHED, RELEASED; empty while open"
    ),
    Column("charged", String(8), comment="null while open"),
    Column("cost_micros", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("text_output_tokens", BigInteger, nullable=False),
    Column("image_output_tokens", BigInteger, nullable=False),
    Column("usage_reported", Boolean, nullable=False),
    Column("provider_status", String(64), nullable=False),
    Column("provider_response_id", String(255), nullable=False),
    Column("error_code", String(64), nullable=False),
    Column("processing_ms", Integer),
    Index("ix_attempts_result", "result_id"),
    Index("ix_attempts_day", "user_id", "start_time"),
    # The pace of a bucket is read from its latest starts.
    Index("ix_attempts_bucket", "bucket_id", "start_time"),
    Index("ix_attempts_open", "execution_id", **_where("charged is null")),
    Index("ix_attempts_latency", "model", "end_time", **_where("outcome = 'COMPLETED'")),
)

images = Table(
    "images",
    metadata,
    _id(primary_key=True),
    _id("user_id", ForeignKey("users.id"), nullable=False, index=True),
    _id("execution_id", index=True, comment="the execution that made it; null for uploads"),
    Column("kind", String(16), nullable=False),
    Column("mime_type", String(64), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("blob_path", String(255), nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("expire_time", UtcDateTime, comment="an upload goes then unless an execution has used it"),
    Index("ix_images_expire", "expire_time", **_where("expire_time is not null")),
)

# Conditions of partial indexes, word for word: neither database sees that a bound parameter fulfils one.
PENDING = results.c.state == literal_column("'PENDING'")
"""Results that wait to be leased."""
PROCESSING = results.c.state == literal_column("'PROCESSING'")
"""Results that are leased."""
ABANDONED = (results.c.state == literal_column("'CANCELLED'")) & results.c.lease_expires_at.is_not(None)
"""Cancelled results that still have a lease, because a call of theirs is out."""
