"""Rows as the domain's objects, and back. Locks are taken here, always in the same order (see database)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, cast

from sqlalchemy import (
    BigInteger,
    BindParameter,
    FromClause,
    Row,
    Select,
    Table,
    bindparam,
    column,
    func,
    insert,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from nanobatch_storage.adapters import tables
from nanobatch_storage.adapters.database import Transaction
from nanobatch_storage.adapters.prepared import Prepared, Rows
from nanobatch_storage.domain import (
    Attempt,
    Bucket,
    Charged,
    EncryptedKey,
    Execution,
    ExecutionState,
    OutputOptions,
    PauseReason,
    Result,
    ResultState,
    Settings,
    UnknownPolicy,
    WaitReason,
)

R = TypeVar("R", Execution, Result, Attempt, Bucket)


def for_update(statement: Select[Any]) -> Select[Any]:
    """Lock the rows (PostgreSQL: FOR NO KEY UPDATE, which lets foreign keys be checked); SQLite's writer is alone anyway."""
    return statement.with_for_update(key_share=True)


def _values(row: Row[Any] | Mapping[str, Any]) -> dict[str, Any]:
    # Not by the row's mapping view, whose every value is looked up by its name.
    return dict(zip(row._fields, row, strict=True)) if isinstance(row, Row) else dict(row)


def execution_from(row: Row[Any] | Mapping[str, Any]) -> Execution:
    """Return the execution of a row of ``executions``, or of its columns by name."""
    values = _values(row)
    values.pop("active", None)  # the database computes it
    values["state"] = ExecutionState(values["state"])
    values["pause_reason"] = PauseReason(values["pause_reason"]) if values["pause_reason"] else None
    values["settings"] = settings_from(values["settings"])
    return Execution(**values, stored=values)


def result_from(row: Row[Any] | Mapping[str, Any]) -> Result:
    """Return the result of a row of ``results``, or of its columns by name."""
    values = _values(row)
    values["state"] = ResultState(values["state"])
    values["error_charged"] = Charged(values["error_charged"]) if values["error_charged"] else None
    values["reference_image_ids"] = tuple(values["reference_image_ids"])
    return Result(**values, stored=values)


def attempt_from(row: Row[Any] | Mapping[str, Any]) -> Attempt:
    """Return the attempt of a row of ``attempts``, or of its columns by name."""
    values = _values(row)
    values["charged"] = Charged(values["charged"]) if values["charged"] else None
    return Attempt(**values, stored=values)


def result_and_attempt_from(row: Row[Any]) -> tuple[Result, Attempt | None]:
    """Return both of a row of ``results`` joined with ``attempts``, whose columns follow and may all be null."""
    values, width = tuple(row), len(tables.results.c)
    result = result_from(dict(zip(_columns(tables.results), values[:width], strict=True)))
    if values[width] is None:
        return result, None
    return result, attempt_from(dict(zip(_columns(tables.attempts), values[width:], strict=True)))


def bucket_from(row: Row[Any] | Mapping[str, Any]) -> Bucket:
    """Return the bucket of a row of ``buckets``, or of its columns by name."""
    values = _values(row)
    values["cooldown_reason"] = WaitReason(values["cooldown_reason"]) if values["cooldown_reason"] else None
    return Bucket(**values, stored=values)


def settings_from(stored: dict[str, Any]) -> Settings:
    """Return the settings that :func:`values_of` stored."""
    values = dict(stored)
    values["output"] = OutputOptions(**values["output"])
    values["reference_image_ids"] = tuple(values["reference_image_ids"])
    values["on_unknown"] = UnknownPolicy(values["on_unknown"])
    return Settings(**values)


def values_of(thing: Execution | Result | Attempt | Bucket) -> dict[str, Any]:
    """Return the column values of an object."""
    return {name: _stored_form(getattr(thing, name)) for name in _columns(_table_of(thing))}


def _stored_form(value: Any) -> Any:
    if isinstance(value, Settings):
        return {
            **{f.name: getattr(value, f.name) for f in fields(value)},
            "output": {f.name: getattr(value.output, f.name) for f in fields(value.output)},
            "reference_image_ids": list(value.reference_image_ids),
        }
    return list(value) if isinstance(value, tuple) else value


def key_to_record(key: EncryptedKey) -> dict[str, Any]:
    """Return the stored form of an encrypted key: ``{encrypted, iv, authTag, salt, keyId, version}``, bytes as hex."""
    return {
        "encrypted": key.encrypted.hex(),
        "iv": key.iv.hex(),
        "authTag": key.auth_tag.hex(),
        "salt": key.salt.hex(),
        "keyId": key.key_id,
        "version": key.version,
    }


def key_from_record(record: dict[str, Any]) -> EncryptedKey:
    """Return the encrypted key of a stored record."""
    return EncryptedKey(
        encrypted=bytes.fromhex(record["encrypted"]),
        iv=bytes.fromhex(record["iv"]),
        auth_tag=bytes.fromhex(record["authTag"]),
        salt=bytes.fromhex(record["salt"]),
        key_id=record["keyId"],
        version=record["version"],
    )


def locking(ids: Select[tuple[str]]) -> Prepared:
    """Return the statement that locks executions, by id, of a select of ids."""
    wanted = ids.distinct().order_by(*ids.selected_columns).subquery("wanted")
    return Prepared(_lock_by_id(tables.executions, ids), postgresql=_lock_newest(wanted))


def _lock_by_id(table: Table, ids: Any) -> Select[Any]:
    return for_update(select(table).where(table.c.id.in_(ids)).order_by(table.c.id))


def _lock_newest(wanted: FromClause) -> Select[Any]:
    """Lock executions on PostgreSQL, in the order of ``wanted``, whose one column has their ids.

    Their rows change with every step of every picture. While an old snapshot is open none of the old ones can be removed, and
    by the primary key all would be met; here the newest is the first (docs/adr/0024).
    """
    (wanted_id,) = wanted.c
    newest = (
        for_update(select(tables.executions).where(wanted_id == tables.ROW_KEY))
        .order_by(tables.EPOCH.desc())
        .limit(literal_column("1"))
        .lateral("newest")
    )
    return select(newest).select_from(wanted.join(newest, true()))


# Built once: SQLAlchemy remembers the compiled form by the statement, and building one costs more than running it.
_IDS: BindParameter[str] = bindparam("ids", expanding=True)
_ID = tables.executions.c.id.type
_LOCK_BUCKETS = Prepared(_lock_by_id(tables.buckets, _IDS))
_LOCK_EXECUTIONS = Prepared(
    _lock_by_id(tables.executions, _IDS),
    postgresql=_lock_newest(
        func.unnest(bindparam("ids", type_=ARRAY(_ID))).table_valued(column("id", _ID), name="wanted").render_derived()
    ),
)


async def lock_buckets(tx: Transaction, bucket_ids: Iterable[str]) -> dict[str, Bucket]:
    """Lock the buckets that there are, by id. Before executions in the order of locks."""
    found = await tx.connection.execute(_LOCK_BUCKETS, {"ids": list(bucket_ids)})
    return {row.id: bucket_from(row) for row in found}


async def lock_bucket(tx: Transaction, bucket_id: str) -> Bucket:
    """Lock a bucket."""
    return (await lock_buckets(tx, [bucket_id]))[bucket_id]


async def lock_executions(tx: Transaction, execution_ids: Iterable[str]) -> dict[str, Execution]:
    """Lock the executions that there are, by id."""
    found = await tx.connection.execute(_LOCK_EXECUTIONS, {"ids": sorted(execution_ids)})
    return {row.id: execution_from(row) for row in found}


async def lock_execution(tx: Transaction, execution_id: str) -> Execution | None:
    """Lock an execution, or return None where there is none."""
    return (await lock_executions(tx, [execution_id])).get(execution_id)


async def lock_results(tx: Transaction, condition: Any, *, limit: int | None = None) -> list[Result]:
    """Lock results in id order; their execution must be locked already."""
    statement = for_update(select(tables.results).where(condition).order_by(tables.results.c.id))
    if limit is not None:
        statement = statement.limit(limit)
    return [result_from(row) for row in await tx.connection.execute(statement)]


async def open_attempts(tx: Transaction, result_ids: Iterable[str]) -> list[Attempt]:
    """Lock the open attempts of results."""
    statement = for_update(
        select(tables.attempts)
        .where(tables.attempts.c.result_id.in_(list(result_ids)), tables.attempts.c.charged.is_(None))
        .order_by(tables.attempts.c.id)
    )
    return [attempt_from(row) for row in await tx.connection.execute(statement)]


async def save(tx: Transaction, things: Sequence[R]) -> None:
    """Write what has changed in objects of one kind back to their rows; all of an object that was not read."""
    batches: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for thing in things:
        now = {name: getattr(thing, name) for name in _columns(_table_of(thing))}
        before = thing.stored
        changed = {name: value for name, value in now.items() if before is None or value != before[name]}
        if not changed:
            continue
        thing.stored = now
        values = {name: _stored_form(value) for name, value in changed.items()}
        known = {"known_revision": before.get("revision")} if before is not None else {}
        batches.setdefault(tuple(values), []).append({"row_id": thing.id, **known, **values})
    for names, batch in batches.items():
        statement = _update_of(_table_of(things[0]), names)
        written = await tx.connection.execute(statement, batch if len(batch) > 1 else batch[0])
        if cast("Rows", written).rowcount != len(batch):
            raise AssertionError(f"{_table_of(things[0]).name} changed or went away though they were locked")


async def add(tx: Transaction, things: Sequence[R]) -> None:
    """Insert objects of one kind."""
    if things:
        await tx.connection.execute(insert_of(_table_of(things[0])), [values_of(thing) for thing in things])
    for thing in things:
        thing.stored = {name: getattr(thing, name) for name in _columns(_table_of(thing))}


@cache
def _update_of(table: Table, names: tuple[str, ...]) -> Prepared:
    changed: dict[str, BindParameter[Any]] = {name: bindparam(name) for name in names}
    statement = update(table).values(changed)
    row_id: BindParameter[str] = bindparam("row_id")
    by_id = statement.where(table.c.id == row_id)
    if table is not tables.executions:
        return Prepared(by_id)
    epoch = tables.epoch_of(bindparam("known_revision", type_=BigInteger))
    newest = statement.where(row_id == tables.ROW_KEY, epoch == tables.EPOCH)
    return Prepared(by_id, postgresql=newest)


@cache
def insert_of(table: Table) -> Prepared:
    """Return the statement that inserts whole rows of a table; what the database computes is left to it."""
    return Prepared(insert(table).values({name: bindparam(name) for name in _columns(table)}))


@cache
def _columns(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.columns if column.computed is None)


def _table_of(thing: Execution | Result | Attempt | Bucket) -> Table:
    match thing:
        case Execution():
            return tables.executions
        case Result():
            return tables.results
        case Attempt():
            return tables.attempts
        case Bucket():
            return tables.buckets
