"""Every way that a result can go in the queue, on a database at a URL; also a program: ``queue_road.py road|lease URL ROUNDS``.

As a program it prints JSON: how many results each lease of seven slots gave, and how long each took in milliseconds.
``lease`` stops there.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta

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
    Lease,
    LeaseRef,
    NewPicture,
    Usage,
)
from nanobatch_storage.pictures import blob_path

SLOTS = 7
PLANNERS = {
    "as it likes": "",
    "without nested loops": "-c enable_nestloop=off",
    "without hash joins": "-c enable_hashjoin=off",
    "without merge joins": "-c enable_mergejoin=off",
    "with generic plans": "-c plan_cache_mode=force_generic_plan",
    "with nested loops alone": " ".join(
        f"-c enable_{way}=off" for way in ("hashjoin", "mergejoin", "hashagg", "sort", "material", "memoize")
    ),
}
"""What the planner may not do. In the last one it has to ask again, for each row, what was limited."""


def with_options(url: str, options: str) -> str:
    """Add server settings to a URL: ``-c name=value`` and so on."""
    return f"{url}?options={options.replace('=', '%3D')}" if options else url


async def lease(leases: SqlLeases) -> tuple[Sequence[Lease], float]:
    """Lease for :data:`SLOTS`; returns the leases, and after how many milliseconds."""
    started = time.perf_counter()
    taken = (await leases.take(SLOTS)).leases
    return taken, (time.perf_counter() - started) * 1000


async def road(leases: SqlLeases, ledger: SqlLedger) -> tuple[int, float]:
    """Take a few results every way; returns how many were leased, and after how many milliseconds."""
    taken, took = await lease(leases)
    if len(taken) > SLOTS:  # broken: what is said of that is lost if the windows refuse the rest of the road
        return len(taken), took
    refs = [LeaseRef(one.result.id, one.result.lease_id or "") for one in taken]
    assert await leases.extend(refs) == []
    opened = [await ledger.start(ref, one.execution.bucket_id or "") for ref, one in zip(refs, taken, strict=True)]
    for number, (ref, one, attempt) in enumerate(zip(refs, taken, opened, strict=True)):
        if number % 3 == 0:
            await _complete(ledger, ref, attempt, one.execution.user_id)
        elif number % 3 == 1:
            failure = Failure(FailureClass.TRANSIENT, "OFF", "It was off.", Charged.NO)
            await ledger.fail(ref, attempt, failure)
        else:
            await ledger.release([ref])
    await ledger.close_abandoned()
    await leases.resume_due()
    return len(taken), took


async def _complete(ledger: SqlLedger, ref: LeaseRef, attempt: str, owner: str) -> None:
    new = NewPicture(str(uuid.uuid4()), ImageKind.MASTER, "image/png", 1, 1, 7, "a" * 64)
    opening = await ledger.check(ref, attempt)
    stored = Image(
        new.id, owner, new.kind, new.mime_type, 1, 1, 7, new.sha256, blob_path(owner, new.id, new.mime_type),
        opening.execution_id, None, None,
    )  # fmt: skip
    await ledger.complete(Completion(ref, attempt, (new,), Usage(), timedelta(seconds=1), ""), [stored])


async def roads(url: str, rounds: int, *, only_lease: bool = False) -> list[tuple[int, float]]:
    """Walk it so many times over one pool of connections."""
    async with open_database(url) as database:
        leases = SqlLeases(database, duration=timedelta(minutes=5))
        ledger = SqlLedger(database)
        if only_lease:
            return [(len(taken), took) for taken, took in [await lease(leases) for _ in range(rounds)]]
        return [await road(leases, ledger) for _ in range(rounds)]


if __name__ == "__main__":
    walked = asyncio.run(roads(sys.argv[2], int(sys.argv[3]), only_lease=sys.argv[1] == "lease"))
    print(json.dumps({"leased": [count for count, _ in walked], "milliseconds": [took for _, took in walked]}))
