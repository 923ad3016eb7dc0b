"""How many statements a picture costs: each is a fifth of a millisecond of CPU, so that none creeps in unnoticed."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from nanobatch_storage.adapters.accounts_sql import SqlAccounts
from nanobatch_storage.adapters.database import open_database
from nanobatch_storage.adapters.engine_postgres import PostgresConnection
from nanobatch_storage.adapters.engine_sqlite import InlineConnection
from nanobatch_storage.adapters.executions_sql import SqlExecutions
from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.adapters.ledger_sql import SqlLedger
from nanobatch_storage.adapters.lost_sql import _LOST
from nanobatch_storage.domain import Actor, Completion, EndedCall, Image, ImageKind, LeaseRef, NewPicture, Usage
from nanobatch_storage.pictures import blob_path

# What each step may cost on SQLite; PostgreSQL is asked for the time besides, after locks.
BUDGET = {"lease": 10, "start": 8, "check": 1, "complete": 7, "extend": 1}
TIMES = {"lease": 2, "start": 0, "check": 0, "complete": 0, "extend": 0}


@pytest.fixture
async def counted(database_url, monkeypatch):
    """A database without a clock of the test's, and all statements that it was sent."""
    sent = []
    for kind in (InlineConnection, PostgresConnection):

        async def note(connection, statement, parameters=None, run=kind.execute):
            if statement is not _LOST:  # four times a second, however many ask: that does not count
                sent.append(statement)
            return await run(connection, statement, parameters)

        monkeypatch.setattr(kind, "execute", note)
    async with open_database(database_url) as database:
        yield database, sent


async def test_a_picture_costs_no_more_statements_than_its_budget(counted, store):
    database, sent = counted
    actor = Actor(str(uuid.uuid4()))
    await SqlAccounts(database).ensure_user(actor, "somebody")
    key = store.credential()
    paid = {**store.paid_fields(), "credential": key, "fingerprint": key.fingerprint}
    executions, leases = SqlExecutions(database, window=10), SqlLeases(database, duration=timedelta(seconds=30))
    ledger = SqlLedger(database)
    execution, _ = await executions.create(actor, store.new(4, **paid))
    await ledger.confirm_key(execution.bucket_id)
    spent = {}

    async def step(name, work):
        sent.clear()
        answer = await work
        spent[name] = len(sent)
        return answer

    async def lease():
        (found,) = (await leases.take(1)).leases
        return LeaseRef(found.result.id, found.result.lease_id)

    first = await lease()
    ended = EndedCall(first, await ledger.start(first, execution.bucket_id))
    ref = await step("lease", lease())
    await step("extend", leases.extend([ref]))
    attempt = await step("start", ledger.start(ref, execution.bucket_id, ended))
    opening = await step("check", ledger.check(ref, attempt))
    new = NewPicture(str(uuid.uuid4()), ImageKind.MASTER, "image/png", 1, 1, 7, "a" * 64)
    stored = Image(
        new.id, actor.user_id, new.kind, new.mime_type, 1, 1, 7, new.sha256,
        blob_path(actor.user_id, new.id, new.mime_type), opening.execution_id, None, None,
    )  # fmt: skip
    await step(
        "complete", ledger.complete(Completion(ref, attempt, (new,), Usage(), timedelta(seconds=1), ""), [stored])
    )
    asks = database._engine.dialect.name == "postgresql"
    assert {name: count - asks * TIMES[name] for name, count in spent.items()} == BUDGET
