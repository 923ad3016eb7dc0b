"""What a picture leaves in PostgreSQL: its rows with their indexes, and the write-ahead log of its whole road."""

from __future__ import annotations

import statistics
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
from postgres_server import private_postgres

from nanobatch_storage import migrate
from nanobatch_storage.adapters.accounts_sql import SqlAccounts
from nanobatch_storage.adapters.database import open_database
from nanobatch_storage.adapters.executions_sql import SqlExecutions
from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.adapters.ledger_sql import SqlLedger
from nanobatch_storage.domain import (
    Actor,
    Completion,
    Image,
    ImageKind,
    LeaseRef,
    NewExecution,
    NewPicture,
    NewPrompt,
    Settings,
    Usage,
)
from nanobatch_storage.pictures import blob_path

_RESULTS = 300
_PROMPT_BYTES = 1024
_TABLES = ("results", "attempts", "images")


async def bench_rows(_: Path, rounds: int) -> None:
    """Take results from their creation to their end through the ports, and weigh what that left. Medians over rounds."""
    seen: dict[str, list[float]] = {}
    with private_postgres() as server:
        for _round in range(rounds):
            name = server.create()
            await migrate.upgrade(server.url(name))
            with server.connect(name) as connection:
                before = _weigh(connection)
                await _make(server.url(name))
                connection.execute("checkpoint")
                for what, size in _weigh(connection).items():
                    seen.setdefault(what, []).append((size - before[what]) / _RESULTS / 1000)
            server.drop(name)
    for what, sizes in seen.items():
        print(f"{what:24} {statistics.median(sizes):6.2f} KB a picture (n={rounds} x {_RESULTS})")


def _weigh(connection: psycopg.Connection) -> dict[str, int]:
    found = {}
    for table in _TABLES:
        sizes = connection.execute(f"select pg_table_size('{table}'), pg_indexes_size('{table}')").fetchone()
        assert sizes is not None
        found[table], found[f"{table}: indexes"] = sizes
    log = connection.execute("select pg_current_wal_lsn() - '0/0'").fetchone()
    assert log is not None
    return {**found, "write-ahead log": int(log[0])}


async def _make(url: str) -> None:
    actor = Actor(str(uuid.uuid4()))
    async with open_database(url) as database:
        await SqlAccounts(database).ensure_user(actor, "somebody")
        leases, ledger = SqlLeases(database, duration=timedelta(minutes=5)), SqlLedger(database)
        prompts = tuple(NewPrompt(uuid.uuid4().hex * (_PROMPT_BYTES // 32)) for _ in range(_RESULTS))
        new = NewExecution(
            model="sandbox",
            provider="sandbox",
            settings=Settings(),
            prompts=prompts,
            fingerprint="f" * 64,
            reservation_micros=1000,
        )
        await SqlExecutions(database, window=10).create(actor, new)
        for _ in range(_RESULTS):
            (lease,) = (await leases.take(1)).leases
            ref = LeaseRef(lease.result.id, lease.result.lease_id or "")
            await leases.extend([ref])
            attempt = await ledger.start(ref, lease.execution.bucket_id or "")
            opening = await ledger.check(ref, attempt)
            master = NewPicture(
                str(uuid.uuid4()), ImageKind.MASTER, "image/png", 1024, 1024, 1_500_000, uuid.uuid4().hex * 2
            )
            pictures = (master, replace(master, id=str(uuid.uuid4()), kind=ImageKind.THUMBNAIL))
            stored = [_stored(each, actor, opening.execution_id) for each in pictures]
            done = Completion(ref, attempt, pictures, Usage(), timedelta(seconds=8), uuid.uuid4().hex)
            await ledger.complete(done, stored)


def _stored(new: NewPicture, actor: Actor, execution_id: str) -> Image:
    path = blob_path(actor.user_id, new.id, new.mime_type)
    return Image(
        new.id, actor.user_id, new.kind, new.mime_type, new.width, new.height, new.size_bytes, new.sha256, path,
        execution_id, None, None,
    )  # type: ignore[arg-type]  # fmt: skip  # storage sets the times
