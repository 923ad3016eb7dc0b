"""What the queue's statements read, by PostgreSQL's own counters: the planner is free, its choices must not be bad ones."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import psycopg
import pytest
from queue_seed import seed

from nanobatch_storage import migrate
from nanobatch_storage.adapters.database import open_database
from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.adapters.ledger_sql import SqlLedger
from nanobatch_storage.domain import (
    Charged,
    Completion,
    Failure,
    FailureClass,
    Image,
    ImageKind,
    LeaseRef,
    NewPicture,
    Usage,
)
from nanobatch_storage.pictures import blob_path

PLANNERS = {
    "as it likes": "",
    "without nested loops": "-c enable_nestloop=off",
    "without hash joins": "-c enable_hashjoin=off",
    "without merge joins": "-c enable_mergejoin=off",
    "with generic plans": "-c plan_cache_mode=force_generic_plan",
}
WATCHED = ("results", "attempts")


@pytest.fixture(scope="module", params=["fresh", "stale"])
def large_url(request, postgres_server):
    """100,000 waiting results; the statistics are of them, or of a hundred."""
    name = postgres_server.create()
    url = postgres_server.url(name)
    asyncio.run(migrate.upgrade(url))
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for table in (*WATCHED, "executions"):
            connection.execute(f"alter table {table} set (autovacuum_enabled = off)".encode())
        if request.param == "fresh":
            seed(url, pending=100_000, past=20_000)
        else:
            seed(url, pending=100, executions=10, past=100)
            connection.execute("truncate users, buckets cascade")
            seed(url, pending=100_000, past=20_000, analyze=False)
    yield url
    postgres_server.drop(name)


async def road(url):
    """Take a few results every way that a result can go; returns how many were leased for how many slots."""
    async with open_database(url) as database:
        leases = SqlLeases(database, duration=timedelta(minutes=5))
        ledger = SqlLedger(database)
        taken = (await leases.take(7)).leases
        refs = [LeaseRef(lease.result.id, lease.result.lease_id) for lease in taken]
        assert await leases.extend(refs) == []
        opened = [await ledger.start(ref, lease.execution.bucket_id) for ref, lease in zip(refs, taken, strict=True)]
        for number, (ref, lease, attempt) in enumerate(zip(refs, taken, opened, strict=True)):
            if number % 3 == 0:
                await complete(ledger, ref, attempt, lease.execution.user_id)
            elif number % 3 == 1:
                failure = Failure(FailureClass.TRANSIENT, "OFF", "It was off.", Charged.NO)
                await ledger.fail(ref, attempt, failure)
            else:
                await ledger.release([ref])
        await ledger.close_abandoned()
        await leases.resume_due()
        return len(taken)


async def complete(ledger, ref, attempt, owner):
    new = NewPicture(str(uuid.uuid4()), ImageKind.MASTER, "image/png", 1, 1, 7, "a" * 64)
    opening = await ledger.check(ref, attempt)
    stored = Image(
        new.id, owner, new.kind, new.mime_type, 1, 1, 7, new.sha256, blob_path(owner, new.id, new.mime_type),
        opening.execution_id, None, None,
    )  # fmt: skip
    await ledger.complete(Completion(ref, attempt, (new,), Usage(), timedelta(seconds=1), ""), [stored])


def scans(url):
    """Return how often each table was read from end to end; sessions that have ended are counted."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        found = connection.execute("select relname, seq_scan from pg_stat_user_tables").fetchall()
    return {name: count for name, count in found if name in WATCHED}


@pytest.mark.parametrize("planner", PLANNERS)
async def test_nothing_on_the_road_of_a_picture_reads_a_whole_table(large_url, planner):
    before = scans(large_url)
    for _ in range(3):
        assert await road(f"{large_url}?options={PLANNERS[planner].replace('=', '%3D')}") == 7  # as many as asked for
    assert scans(large_url) == before
