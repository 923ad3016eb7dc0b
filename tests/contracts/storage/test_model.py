"""Random work of three workers with old and new leases, and of users, against a small model of who holds what.

``NANOBATCH_MODEL_STEPS`` (200) and ``NANOBATCH_MODEL_SEED`` (1) choose the run; a failure names its seed and step.
"""

from __future__ import annotations

import os
import random
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from sqlalchemy import select

from nanobatch_runtime.errors import NanobatchError
from nanobatch_storage.adapters import tables
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
from nanobatch_storage.errors import LeaseLostError, WindowFullError
from nanobatch_storage.pictures import blob_path

STEPS = int(os.environ.get("NANOBATCH_MODEL_STEPS", "200"))
SEED = int(os.environ.get("NANOBATCH_MODEL_SEED", "1"))
TTL = timedelta(seconds=30)
FINAL = {"COMPLETED", "FAILED", "CANCELLED"}
PAID = Usage(input_tokens=12, image_output_tokens=1290, cost_micros=38_704, reported=True)


@dataclass
class Held:
    """A lease that some worker thinks it has."""

    ref: LeaseRef
    bucket_id: str
    execution_id: str
    expires: object
    attempt_id: str = ""
    closed: str = ""
    """How its attempt was closed by its worker."""
    may_go: bool = False
    """Whether the deed just done may have given it back."""


@dataclass
class World:
    """Storage, the model, and the dice."""

    store: object
    leases: SqlLeases
    ledger: SqlLedger
    user: object
    dice: random.Random
    held: list[Held] = field(default_factory=list)
    current: dict[str, Held] = field(default_factory=dict)
    """The one lease of each result that counts."""
    rows: dict = field(default_factory=dict)
    heads: dict = field(default_factory=dict)
    retried: set = field(default_factory=set)

    # -- what workers do -------------------------------------------------------------------------------------------

    async def take(self):
        for lease in (await self.leases.take(self.dice.randint(1, 6), self.dice.randint(0, 2))).leases:
            before = self.current.get(lease.result.id)
            assert before is None or before.expires <= self.store.clock.now(), (
                "a lease was given away that had not run out"
            )
            ref = LeaseRef(lease.result.id, lease.result.lease_id)
            new = Held(ref, lease.execution.bucket_id, lease.execution.id, self.store.clock.now() + TTL)
            self.held.append(new)
            self.current[ref.result_id] = new

    async def start(self):
        one = self.some()
        if one is None:
            return
        counted = self.counts(one)
        try:
            one.attempt_id = await self.ledger.start(one.ref, one.bucket_id, None) or one.attempt_id
        except WindowFullError:
            return
        except LeaseLostError:
            one.may_go = True  # paused or cooling down: it is given back
            if counted and one.attempt_id and not one.closed and await self.was_released(one.attempt_id):
                self.close(one, "released")  # asked again before the call: its attempt is closed as never sent
        else:
            assert self.counts(one), "an attempt was opened under a lease that did not count"

    async def was_released(self, attempt_id):
        async with self.store.database.read() as tx:
            query = select(tables.attempts.c.outcome).where(tables.attempts.c.id == attempt_id)
            return (await tx.connection.execute(query)).scalar_one_or_none() == "RELEASED"

    async def extend(self):
        chosen = [one for one in self.held if self.dice.random() < 0.5]
        lost = set(await self.leases.extend([one.ref for one in chosen]))
        for one in chosen:
            if one.ref in lost:
                assert not (self.counts(one) and not one.closed and self.state(one) == "PROCESSING"), (
                    "a lease that counts is lost"
                )
            else:
                assert self.counts(one), "a lease that does not count was prolonged"
                one.expires = self.store.clock.now() + TTL

    async def complete(self):
        one = self.some(started=True)
        if one is None:
            return
        new = NewPicture(str(uuid.uuid4()), ImageKind.MASTER, "image/png", 1024, 1024, 7, "a" * 64)
        path = blob_path(self.user.user_id, new.id, new.mime_type)
        image = Image(
            new.id, self.user.user_id, new.kind, new.mime_type, 1024, 1024, 7, new.sha256, path, None, None, None
        )
        # A repeat is answered as the first time, as long as the execution is there.
        may = self.counts(one) or (one.closed == "completed" and self.state(one) != "")
        try:
            await self.ledger.complete(
                Completion(one.ref, one.attempt_id, (new,), PAID, timedelta(seconds=2), "response"), [image]
            )
        except LeaseLostError:
            assert not may, (
                f"a completion under the lease that counts was refused: {one}, {self.rows['results'].get(one.ref.result_id)}"
            )
        else:
            assert may, "a completion under an old lease was accepted"
            self.close(one, "completed")

    async def fail(self):
        one = self.some(started=True)
        if one is None:
            return
        kind = self.dice.choice(
            [FailureClass.TRANSIENT, FailureClass.UNKNOWN, FailureClass.BLOCKED, FailureClass.DAMAGED]
        )
        may = self.counts(one) or (one.closed == "failed" and self.state(one) != "")
        try:
            await self.ledger.fail(one.ref, one.attempt_id, Failure(kind, kind.value, "A sentence.", Charged.MAYBE))
        except LeaseLostError:
            assert not may, "a failure under the lease that counts was refused"
        else:
            assert may, "a failure under an old lease was accepted"
            self.close(one, "failed")

    async def release(self):
        one = self.some()
        if one is not None:
            await self.ledger.release([one.ref])
            one.may_go = True

    async def time_passes(self):
        self.store.clock.advance(timedelta(seconds=self.dice.choice([1, 5, 20, 40])))

    async def sweep(self):
        await self.ledger.close_abandoned()
        await self.leases.resume_due()

    # -- what users do ---------------------------------------------------------------------------------------------

    async def create(self):
        if len(self.rows.get("executions", ())) < 6:
            await self.store.paid(self.user, self.dice.randint(1, 8))

    async def control(self):
        execution = self.some_execution()
        if execution is None:
            return
        control = self.store.control
        verb = self.dice.choice([control.pause, control.resume, control.resume, control.cancel])
        with suppress(NanobatchError):  # it has ended, or its key is gone: an answer as well
            await (
                verb(self.user, execution)
                if verb != control.resume
                else control.resume(self.user, execution, None, None)
            )

    async def delete(self):
        execution = self.some_execution()
        if execution is not None and self.dice.random() < 0.2:
            with suppress(NanobatchError):
                await self.store.control.delete(self.user, execution)

    # -- the model -------------------------------------------------------------------------------------------------

    def some(self, *, started: bool = False) -> Held | None:
        choice = [one for one in self.held if one.attempt_id or not started]
        return self.dice.choice(choice[-12:]) if choice else None

    def some_execution(self):
        found = sorted(self.rows.get("executions", {}))
        return self.dice.choice(found) if found else None

    def counts(self, one: Held) -> bool:
        return self.current.get(one.ref.result_id) is one

    def state(self, one: Held) -> str:
        row = self.rows["results"].get(one.ref.result_id)
        return row.state if row is not None else ""

    def close(self, one: Held, how: str) -> None:
        one.closed = how
        if self.counts(one):
            del self.current[one.ref.result_id]

    async def look(self):
        """Read everything, and hold it against what was there before."""
        async with self.store.database.read() as tx:

            async def table(which):
                return {row.id: row for row in await tx.connection.execute(select(which))}

            executions, results = await table(tables.executions), await table(tables.results)
            attempts = list((await table(tables.attempts)).values())
        for execution_id, execution in executions.items():
            mine = [row for row in results.values() if row.execution_id == execution_id]
            opened = [row for row in attempts if row.execution_id == execution_id and row.charged is None]
            for state in ("pending", "processing", "completed", "failed", "cancelled"):
                assert getattr(execution, state) == sum(row.state == state.upper() for row in mine), (
                    f"counts of {state}"
                )
            assert execution.open_attempts == len(opened), "open attempts"
            reserved = sum(row.reserved_micros for row in mine) + sum(row.reserved_micros for row in opened)
            assert execution.reserved_micros == reserved, "reservations"
            assert len({row.revision for row in mine}) == len(mine), "two rows with one revision"
            assert execution.revision >= max(row.revision for row in mine), "a revision above the counter"
            head = self.heads.get(execution_id, 0)
            assert execution.revision >= head, "the counter went back"
            for row in mine:
                old = self.rows.get("results", {}).get(row.id)
                if old is None or old.state == row.state:
                    continue
                assert row.revision > head, f"{old.state} became {row.state} without a new revision"
                assert old.state not in FINAL, f"{old.state} became {row.state}"
            self.heads[execution_id] = execution.revision
        done = [row.result_id for row in attempts if row.outcome == "COMPLETED"]
        assert len(done) == len(set(done)), "a result was completed twice"
        self.rows = {"executions": executions, "results": results}
        now = self.store.clock.now()
        for result_id, one in list(self.current.items()):
            row = results.get(result_id)
            if row is not None and row.lease_id == one.ref.lease_id:
                continue
            gone = row is None or row.state == "CANCELLED" or one.expires <= now or one.may_go
            assert gone, f"a lease that had not run out was taken from {result_id}, now {row.state}"
            del self.current[result_id]
        for one in self.held:
            one.may_go = False


@pytest.fixture
async def world(store, monkeypatch):
    dice = random.Random(SEED)
    # Ids decide the order of rows, and with it who is chosen: a seed names one run only where ids come from it too.
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=dice.getrandbits(128), version=4))
    user = await store.user()
    leases = SqlLeases(store.database, duration=TTL, ahead=0)
    return World(store, leases, SqlLedger(store.database), user, dice)


@pytest.mark.timeout(60 + STEPS)
async def test_whatever_workers_and_users_do_only_the_lease_that_counts_changes_anything(world):
    deeds = {
        world.take: 6, world.start: 8, world.extend: 3, world.complete: 6, world.fail: 3, world.release: 2,
        world.time_passes: 3, world.sweep: 1, world.create: 2, world.control: 2, world.delete: 1,
    }  # fmt: skip
    await world.create()
    await world.look()
    last: list[str] = []
    for step in range(STEPS):
        (deed,) = world.dice.choices(list(deeds), list(deeds.values()))
        last.append(deed.__name__)
        try:
            await deed()
            await world.look()
        except AssertionError as error:
            pytest.fail(f"seed {SEED}, step {step}, after {last[-12:]}: {error}", pytrace=False)
