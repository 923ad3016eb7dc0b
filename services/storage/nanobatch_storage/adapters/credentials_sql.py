"""Provider keys of executions, and the buckets that they are paced by."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Table, null, select, update
from sqlalchemy.dialects import postgresql, sqlite

from nanobatch_runtime.errors import FieldViolation, InvalidArgumentError
from nanobatch_runtime.ids import is_id
from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.database import Transaction
from nanobatch_storage.adapters.tables import buckets, credentials
from nanobatch_storage.domain import KEYLESS_PROVIDER, Bucket, Execution, NewCredential, PauseReason
from nanobatch_storage.errors import KeyNeededError


async def insert_if_absent(tx: Transaction, table: Table, values: dict[str, Any]) -> bool:
    """Insert a row unless one with the same unique key exists, however many try at once; say whether it was inserted."""
    make = sqlite.insert if tx.connection.dialect.name == "sqlite" else postgresql.insert
    statement = make(table).values(values).on_conflict_do_nothing().returning(*table.primary_key)
    return (await tx.connection.execute(statement)).one_or_none() is not None


async def ensure_bucket(tx: Transaction, provider: str, model: str, fingerprint: str, window: float) -> str:
    """Return the id of the bucket of a key and model, made with ``window`` calls in flight where there was none."""
    wanted = select(buckets.c.id).where(buckets.c.fingerprint == fingerprint, buckets.c.model == model)
    found = (await tx.connection.execute(wanted)).scalar_one_or_none()
    if found is None:
        bucket = Bucket(
            id=str(uuid.uuid4()),
            provider=provider,
            model=model,
            fingerprint=fingerprint,
            window=window,
            confirmed_at=None,
            cooldown_until=None,
            cooldown_reason=None,
            rate_limits=0,
            overloads=0,
            cut_at=None,
        )
        await insert_if_absent(tx, buckets, rows.values_of(bucket))
        found = (await tx.connection.execute(wanted)).scalar_one()
    return str(found)


async def add_credential(tx: Transaction, user_id: str, provider: str, credential: NewCredential) -> None:
    """Store an unsaved key of a user. Raises InvalidArgumentError for an id that is no UUID."""
    if not is_id(credential.id):
        violation = FieldViolation("credential.id", "An id is a UUID in lower case.", "BAD_ID")
        raise InvalidArgumentError("The credential has no proper id.", violations=[violation])
    await tx.connection.execute(
        credentials.insert().values(
            id=credential.id,
            user_id=user_id,
            provider=provider,
            fingerprint=credential.fingerprint,
            saved=False,
            record=rows.key_to_record(credential.key),
            create_time=tx.now,
        )
    )


async def has_key(tx: Transaction, execution: Execution) -> bool:
    """Whether the key of an execution is still there."""
    if execution.credential_id is None:
        return False
    statement = select(credentials.c.record.is_not(None)).where(credentials.c.id == execution.credential_id)
    return bool((await tx.connection.execute(statement)).scalar_one_or_none())


async def wipe_key(tx: Transaction, credential_id: str | None) -> None:
    """Delete a key unless its user saved it. Its row stays, without the key."""
    if credential_id is not None:
        statement = update(credentials).where(credentials.c.id == credential_id, credentials.c.saved.is_(False))
        await tx.connection.execute(statement.values(record=null()))


async def wipe_key_if_done(tx: Transaction, execution: Execution) -> None:
    """Delete the unsaved key of an execution that is final and has no call out: nothing needs it any more."""
    if execution.is_final and execution.open_attempts == 0:
        await wipe_key(tx, execution.credential_id)


async def lock_bucket_for(
    tx: Transaction, execution: Execution, credential: NewCredential | None, window: float
) -> Bucket:
    """Lock the bucket that an execution will have with the key given, before the execution itself is locked."""
    bucket_id = execution.bucket_id
    if credential is not None:
        bucket_id = await ensure_bucket(tx, execution.provider, execution.model, credential.fingerprint, window)
    return await rows.lock_bucket(tx, bucket_id)


async def take_key(tx: Transaction, execution: Execution, credential: NewCredential | None, bucket: Bucket) -> None:
    """Give an execution that goes on its new key, where there is one. Raises KeyNeededError where it has none at all.

    ``bucket`` comes from :func:`lock_bucket_for`. A key that was refused is checked again even if it is the same one:
    its owner may have mended it at the provider.
    """
    if execution.pause_reason is PauseReason.INVALID_KEY and bucket.confirmed_at is not None:
        bucket.confirmed_at = None
        await rows.save(tx, [bucket])
    if credential is not None:
        await add_credential(tx, execution.user_id, execution.provider, credential)
        await wipe_key(tx, execution.credential_id)
        execution.credential_id, execution.bucket_id = credential.id, bucket.id
    elif execution.provider != KEYLESS_PROVIDER and not await has_key(tx, execution):
        raise KeyNeededError
