"""The ledger added up, on both databases, against a sum made by hand."""

from __future__ import annotations

import asyncio
import math
import random
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, insert, text

from nanobatch_runtime.errors import InvalidArgumentError
from nanobatch_storage.adapters import usage_sql
from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.adapters.ledger_sql import SqlLedger
from nanobatch_storage.adapters.tables import attempts
from nanobatch_storage.adapters.usage_sql import SqlAnalytics
from nanobatch_storage.domain import Actor, Charged, Failure, FailureClass, LeaseRef, Usage
from nanobatch_storage.errors import AdminOnlyError, UserNotFoundError
from nanobatch_storage.usage import Grouping, UsageFigures, UsageQuery

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
EVERYTHING = tuple(Grouping)


@dataclass
class Book:
    """The ledger of one user, written by hand."""

    store: object
    actor: Actor
    bucket_id: str

    async def write(self, *calls):
        """Write calls; each is what differs from a successful one of a sandbox on New Year's Day."""
        same = {
            "user_id": self.actor.user_id, "bucket_id": self.bucket_id, "job_id": None, "model": "sandbox",
            "reserved_micros": 40_000, "start_time": NEW_YEAR, "end_time": NEW_YEAR, "outcome": "COMPLETED",
            "charged": "YES", "cost_micros": 0, "input_tokens": 0, "text_output_tokens": 0, "image_output_tokens": 0,
            "usage_reported": True, "provider_status": "", "provider_response_id": "", "error_code": "",
            "processing_ms": None,
        }  # fmt: skip
        ids = ("id", "execution_id", "result_id", "lease_id")
        rows = [{**same, **{name: str(uuid.uuid4()) for name in ids}, **call} for call in calls]
        await self.store.database.write(lambda tx: tx.connection.execute(insert(attempts), rows))
        return rows

    async def usage(self, *group_by, actor=None, **changes):
        asked = {"start": NEW_YEAR, "end": NEW_YEAR + timedelta(days=31), "user_id": self.actor.user_id, **changes}
        query = UsageQuery(group_by=group_by, **asked)
        return await SqlAnalytics(self.store.database).usage(actor or self.actor, query)


@pytest.fixture
async def new_book(store):
    async def make(*, admin=False):
        actor = await store.user(admin=admin)
        execution = await store.execution(actor)
        await store.control.cancel(actor, execution.id)  # only its bucket is wanted
        return Book(store, actor, execution.bucket_id)

    return make


@pytest.fixture
async def book(new_book):
    return await new_book()


def by_hand(rows, group_by):
    """Add up rows another way; returns figures by group."""
    groups = defaultdict(list)
    for row in rows:
        if row["charged"] is not None and row["outcome"] != "RELEASED":
            key = {"day": row["start_time"].astimezone(UTC).date().isoformat(), **row}
            groups[tuple(key[name.lower()] if name in group_by else "" for name in EVERYTHING)].append(row)
    return {key: figures(group) for key, group in groups.items()}


def figures(rows):
    times = sorted(r["processing_ms"] for r in rows if r["outcome"] == "COMPLETED" and r["processing_ms"] is not None)
    ranks = [times[math.ceil(len(times) * part / 100) - 1] for part in (50, 90, 99)] if times else [None] * 3
    unknown = [row["reserved_micros"] for row in rows if row["charged"] == "MAYBE" and not row["usage_reported"]]
    return UsageFigures(
        sum(row["outcome"] == "COMPLETED" for row in rows),
        len(rows),
        sum(row["cost_micros"] for row in rows),
        sum(unknown),
        *(None if rank is None else timedelta(milliseconds=rank) for rank in ranks),
    )


def some_calls(seed, count=400):
    chance = random.Random(seed)  # a test's own dice
    zone = [UTC, datetime.strptime("-1130", "%z").tzinfo]
    for _ in range(count):
        outcome = chance.choice(["COMPLETED", "COMPLETED", "RATE_LIMITED", "UNKNOWN", "CRASHED", "RELEASED", ""])
        charged = {"COMPLETED": "YES", "RATE_LIMITED": "NO", "RELEASED": "NO", "": None}.get(outcome, "MAYBE")
        yield {
            "start_time": (NEW_YEAR + timedelta(minutes=chance.randrange(4 * 1440))).astimezone(chance.choice(zone)),
            "model": chance.choice(["sandbox", "gemini-2.5-flash-image"]),
            "outcome": outcome,
            "charged": charged,
            "cost_micros": chance.randrange(40_000) if charged == "YES" else 0,
            "usage_reported": charged == "YES",
            "processing_ms": chance.choice([None, chance.randrange(1, 9_000)]),
        }


@pytest.mark.parametrize(
    "group_by",
    [(), (Grouping.DAY,), (Grouping.MODEL,), (Grouping.OUTCOME,), (Grouping.DAY, Grouping.MODEL), EVERYTHING],
    ids="-".join,
)
async def test_figures_are_those_of_a_sum_by_hand(book, group_by):
    rows = await book.write(*some_calls("seed"))
    report = await book.usage(*group_by)
    expected = by_hand(rows, group_by)
    assert {(row.day, row.model, row.outcome): row.figures for row in report.rows} == (expected if group_by else {})
    assert [(row.day, row.model, row.outcome) for row in report.rows] == (sorted(expected) if group_by else [])
    assert report.totals == by_hand(rows, ())["", "", ""]


async def test_without_calls_there_is_nothing_and_no_latency(book):
    report = await book.usage(*EVERYTHING)
    assert (report.rows, report.totals) == ([], UsageFigures())


async def test_the_range_holds_its_start_and_not_its_end(book):
    moment = timedelta(microseconds=1)
    end = NEW_YEAR + timedelta(days=31)
    await book.write(*({"start_time": at} for at in (NEW_YEAR - moment, NEW_YEAR, end - moment, end)))
    report = await book.usage(Grouping.DAY)
    assert [(row.day, row.figures.attempts) for row in report.rows] == [("2026-01-01", 1), ("2026-01-31", 1)]


async def test_a_model_is_asked_for_alone(book):
    await book.write({"model": "sandbox"}, {"model": "another"})
    assert (await book.usage(model="another")).totals.attempts == 1
    assert (await book.usage(model="nobody's")).totals.attempts == 0


async def test_everybody_sees_their_own_and_admins_each_and_all(new_book):
    one, other, admin = await new_book(), await new_book(), await new_book(admin=True)
    await one.write({"cost_micros": 1})
    await other.write({"cost_micros": 10})
    assert (await one.usage()).totals.cost_micros == 1
    assert (await one.usage(actor=admin.actor)).totals.cost_micros == 1
    assert (await one.usage(actor=admin.actor, user_id=None)).totals.cost_micros == 11
    for foreign in (other.actor.user_id, str(uuid.uuid4()), "nobody"):
        with pytest.raises(UserNotFoundError):
            await one.usage(user_id=foreign)
    with pytest.raises(AdminOnlyError):
        await one.usage(user_id=None)


async def test_money_is_that_of_the_executions_and_stays_when_they_are_deleted(store, new_book):
    book = await new_book()
    leases, ledger = SqlLeases(store.database, duration=timedelta(seconds=30)), SqlLedger(store.database)
    execution = await store.paid(book.actor, 2)
    await ledger.confirm_key(execution.bucket_id)
    for lease, charged in zip((await leases.take(2)).leases, (Charged.YES, Charged.MAYBE), strict=True):
        ref = LeaseRef(lease.result.id, lease.result.lease_id)
        attempt = await ledger.start(ref, lease.execution.bucket_id)
        usage = Usage(cost_micros=38_704, reported=True) if charged is Charged.YES else Usage()
        await ledger.fail(ref, attempt, Failure(FailureClass.BLOCKED, "BLOCKED", "No.", charged, usage=usage))
    shown = (await store.executions.get(book.actor, execution.id)).execution
    range_ = {"start": shown.create_time, "end": shown.create_time + timedelta(days=1)}
    totals = (await book.usage(**range_)).totals
    assert (
        (totals.cost_micros, totals.uncertain_micros) == (shown.cost_micros, shown.uncertain_micros) == (38_704, 40_000)
    )
    await store.control.delete(book.actor, execution.id)
    assert (await book.usage(**range_)).totals == totals


async def test_too_many_groups_are_refused_and_not_cut(book, monkeypatch):
    monkeypatch.setattr(usage_sql, "MAX_ROWS", 3)
    await book.write(*({"model": f"model {number}"} for number in range(3)))
    assert len((await book.usage(Grouping.MODEL)).rows) == 3
    await book.write({"model": "one more"})
    with pytest.raises(InvalidArgumentError) as caught:
        await book.usage(Grouping.MODEL)
    assert [violation.field for violation in caught.value.violations] == ["group_by"]


async def test_the_loop_goes_on_while_a_large_ledger_is_added_up(book):
    await book.write(*({"processing_ms": number} for number in range(20_000)))
    turns, started = 0, time.monotonic()
    report = asyncio.ensure_future(book.usage(*EVERYTHING))
    while not report.done():
        await asyncio.sleep(0)
        turns += 1
    took = time.monotonic() - started
    assert (await report).totals.attempts == 20_000
    assert turns > took * 100  # a turn takes less than 10 ms on average


@pytest.mark.parametrize("everybody", [False, True])
async def test_an_index_finds_the_calls(book, everybody):
    """PostgreSQL is asked with sequential scans as the last resort: for a few rows they are the best plan."""
    sent = []
    database = book.store.database
    engine = getattr(database._engine._engine, "sync_engine", database._engine._engine)

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, parameters, *_):
        sent.append((statement, parameters))

    await book.usage(
        *EVERYTHING, actor=Actor(book.actor.user_id, admin=True), **({"user_id": None} if everybody else {})
    )
    statement, parameters = sent[-1]
    async with database.read() as tx:
        if database.dialect.name == "sqlite":
            plan = str(tx.connection._connection.exec_driver_sql(f"explain query plan {statement}", parameters).all())
        else:
            await tx.connection.execute(text("set enable_seqscan = off"))
            plan = str((await tx.connection._connection.exec_driver_sql(f"explain {statement}", parameters)).all())
            await tx.connection.execute(text("reset enable_seqscan"))
    assert "ix_attempts" in plan  # which one, PostgreSQL decides by how few rows there are
    assert "SCAN attempts" not in plan
    assert "Seq Scan on attempts" not in plan
