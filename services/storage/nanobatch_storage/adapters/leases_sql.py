"""Leases out of the database. The same statements serve SQLite and PostgreSQL (docs/adr/0003-one-lease-statement.md)."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, bindparam, case, func, select, update

from nanobatch_storage import quota
from nanobatch_storage.adapters import jobs_sql, ledger_sql, rows, spending_sql
from nanobatch_storage.adapters.credentials_sql import wipe_key_if_done
from nanobatch_storage.adapters.database import Database, Transaction
from nanobatch_storage.adapters.spending_sql import DayRoom
from nanobatch_storage.adapters.tables import ACTIVE, PENDING, PROCESSING, buckets, credentials, executions, results
from nanobatch_storage.domain import (
    RUNNABLE_EXECUTION_STATES,
    Attempt,
    Bucket,
    EncryptedKey,
    Execution,
    ExecutionState,
    Lease,
    LeaseRef,
    Result,
    ResultState,
)
from nanobatch_storage.fairness import Candidate, Turns, share
from nanobatch_storage.policy import SUSPECT_CRASHES, is_suspect
from nanobatch_storage.ports_queue import Taken


def _in_flight() -> ColumnElement[int]:
    # Calls that are out of a cancelled execution still count; so do leases whose call has not begun. A call that has
    # ended does not, though its picture is still being finished.
    e = executions.c
    return case((e.open_attempts > e.processing, e.open_attempts), else_=e.processing) - e.finishing


# Suspects wait until somebody asks who has a process to run them alone in; the others pass them by.
_UNSUSPECTED = results.c.crashes < bindparam("crashes_below")
_ANY_CRASHES = 2**31 - 1


def _first(count: ColumnElement[int], *conditions: ColumnElement[bool]) -> ColumnElement[datetime]:
    # Looked up only where the execution may run and its own counter says that there is something to find.
    ours = results.c.execution_id == executions.c.id
    first = select(func.min(results.c.ready_at)).where(ours, *conditions).scalar_subquery()
    return case((executions.c.state.in_(sorted(RUNNABLE_EXECUTION_STATES)) & (count > 0), first))


# Statements are built once: SQLAlchemy remembers the compiled form, and building one costs more than running it.
_SURVEY = select(
    executions.c.id,
    executions.c.user_id,
    executions.c.bucket_id,
    executions.c.state,
    executions.c.pending,
    executions.c.processing,
    executions.c.create_time,
    _in_flight().label("in_flight"),
    (executions.c.open_attempts - executions.c.finishing).label("out"),
    _first(executions.c.pending, PENDING, _UNSUSPECTED).label("first_waiting"),
    _first(executions.c.processing, PROCESSING).label("first_expiry"),
).where(ACTIVE)
# Not by a list of ids: a text as long as that is parsed anew each time.
_BUCKETS = select(buckets).where(buckets.c.id.in_(select(executions.c.bucket_id).where(ACTIVE)))
_IN_FLIGHT = select(func.sum(_in_flight())).where(ACTIVE, executions.c.bucket_id == bindparam("bucket_id"))
# One statement per index, each an ordered range of it: lost leases, oldest first, and what waits, in the prompts' order.
# The rows picked are locked and stay picked: unlike UPDATE ... IN (SELECT ... LIMIT), no plan can take more of them.
_PICK_LOST, _PICK_WAITING = (
    select(results)
    .where(results.c.execution_id == bindparam("execution_id"), results.c.ready_at <= bindparam("until"), *conditions)
    .order_by(*order)
    .limit(bindparam("count"))
    .with_for_update(key_share=True, skip_locked=True)
    for conditions, order in (
        ([PROCESSING], [results.c.ready_at]),
        ([PENDING, _UNSUSPECTED], [results.c.batch_index, results.c.variation]),
    )
)
_AHEAD = timedelta(seconds=1)
"""What may start within this time is leased now."""
_KEY = select(credentials.c.id, credentials.c.record).where(credentials.c.id == bindparam("credential_id"))


@dataclass(slots=True)
class _Survey:
    candidates: list[Candidate]
    user_in_flight: Counter[str]
    room: dict[str, int]
    look_again_at: datetime | None
    with_lost: set[str] = field(default_factory=set)
    """Executions that have leases which ran out."""


class SqlLeases:
    """See :class:`nanobatch_storage.ports_queue.Leases`."""

    def __init__(
        self,
        database: Database,
        *,
        duration: timedelta,
        ahead: float = 0.5,
        loop_lag: Callable[[], timedelta] = lambda: timedelta(0),
    ) -> None:
        """``ahead`` of each window is leased besides, so that a result stands ready when a call ends.

        ``loop_lag`` says for how long no heartbeat could arrive lately; no lease counts as expired within it.
        """
        self._ahead = ahead
        self._database = database
        self._duration = duration
        self._loop_lag = loop_lag
        self._turns = Turns()

    async def take(self, slots: int, suspects: int = 0) -> Taken:
        """Lease up to ``slots`` results, at most ``suspects`` of them suspects: fairly, inside windows and caps."""
        async with self._database.read() as tx:
            survey = await self._survey(tx, suspects)
            now = tx.now
        dealt = share(
            survey.candidates,
            slots=slots,
            user_in_flight=survey.user_in_flight,
            room=survey.room,
            turns=self._turns,
        )
        candidates = {candidate.execution_id: candidate for candidate in survey.candidates}
        leases: list[Lease] = []
        touched: list[str] = []
        for execution_id, count in dealt.items():
            has_lost = execution_id in survey.with_lost
            taken, changed = await self._take_from(candidates[execution_id], count, suspects, has_lost=has_lost)
            suspects -= sum(is_suspect(lease.result) for lease in taken)
            leases += taken
            if changed:
                touched.append(execution_id)
        return Taken(tuple(leases), tuple(touched), survey.look_again_at, now)

    async def _survey(self, tx: Transaction, suspects: int) -> _Survey:
        active = (await tx.connection.execute(_SURVEY, {"crashes_below": _crashes_below(suspects)})).all()
        survey = _Survey([], Counter(), {}, None)
        in_flight: Counter[str] = Counter()
        out: Counter[str] = Counter()
        for row in active:
            survey.user_in_flight[row.user_id] += row.in_flight
            in_flight[row.bucket_id] += row.in_flight
            out[row.bucket_id] += row.out
        found = await tx.connection.execute(_BUCKETS)
        by_id = {row.id: rows.bucket_from(row) for row in found}
        for bucket in by_id.values():
            survey.room[bucket.id] = self._room(bucket, in_flight[bucket.id], tx.now)
            if quota.is_learned(bucket) and survey.room[bucket.id] > 0 and not bucket.is_cooling(tx.now):
                await self._pace(tx, survey, bucket, in_flight[bucket.id], out[bucket.id])
        expired = tx.now - self._loop_lag()
        for row in active:
            if row.state not in RUNNABLE_EXECUTION_STATES or row.bucket_id not in by_id:  # it ended between the two
                continue
            cooling_until = by_id[row.bucket_id].cooldown_until
            times = [time for time in (row.first_waiting, row.first_expiry) if time is not None]
            if not times:
                continue
            when = max(min(times), cooling_until) if cooling_until else min(times)
            if when > tx.now:
                survey.look_again_at = min(when, survey.look_again_at or when)
                continue
            if row.first_expiry is not None and row.first_expiry <= expired:
                survey.with_lost.add(row.id)
                survey.room[row.bucket_id] += row.processing  # lost leases still count as in flight: they take no room
            survey.candidates.append(
                Candidate(
                    row.id, row.user_id, row.bucket_id, row.in_flight, row.pending + row.processing, row.create_time
                )
            )
        return survey

    def _room(self, bucket: Bucket, in_flight: int, now: datetime) -> int:
        """How many more of a bucket to lease now. Those that only stand by are leased a few at a time."""
        room = self._places(bucket, now) - in_flight
        ahead = self._places(bucket, now) - bucket.calls_allowed(now)
        return 0 if in_flight >= bucket.calls_allowed(now) and room < ahead / 2 else room

    async def _pace(self, tx: Transaction, survey: _Survey, bucket: Bucket, in_flight: int, out: int) -> None:
        """Lease only what may start soon: a waiting prompt holds no worker slot."""
        traffic = await ledger_sql.traffic_of(tx, bucket, out)
        soon = quota.starts_within(bucket, traffic, tx.now, _AHEAD) - (in_flight - out)
        survey.room[bucket.id] = min(survey.room[bucket.id], max(soon, 0))
        if soon <= 0:
            gap = timedelta(seconds=(1 - soon) / quota.speed(bucket, tx.now))
            when = max(tx.now + gap, quota.next_start(bucket, traffic, tx.now) - _AHEAD)
            survey.look_again_at = min(when, survey.look_again_at or when)

    def _places(self, bucket: Bucket, now: datetime) -> int:
        """How many results of a bucket may be leased: its window, and a few that stand by."""
        window = bucket.calls_allowed(now)
        return window if bucket.needs_key_check(now) else window + math.ceil(window * self._ahead)

    async def _take_from(
        self, candidate: Candidate, count: int, suspects: int, *, has_lost: bool
    ) -> tuple[list[Lease], bool]:
        async def work(tx: Transaction) -> tuple[list[Lease], bool]:
            day = await spending_sql.lock_day(tx, candidate.user_id)
            bucket = await rows.lock_bucket(tx, candidate.bucket_id)
            execution = await rows.lock_execution(tx, candidate.execution_id)
            # A lease that counted from before the wait for these locks might be over when it is given out.
            await self._database.look_at_clock(tx)
            if (
                execution is None
                or execution.state not in RUNNABLE_EXECUTION_STATES
                or execution.bucket_id != candidate.bucket_id
                or bucket.is_cooling(tx.now)
            ):
                return [], False
            before = execution.revision
            picked, free = await self._pick(tx, execution, bucket, count, suspects, has_lost=has_lost)
            leased, out = await self._lease(tx, execution, picked, day, suspects)
            if execution.revision == before:
                return [], False
            execution.close_if_done(tx.now)
            await wipe_key_if_done(tx, execution)
            await rows.save(tx, [execution])
            key = await _key_of(tx, execution)
            check = bucket.needs_key_check(tx.now)
            jobs = await jobs_sql.of(tx, out)
            return [
                Lease(
                    execution,
                    result,
                    key,
                    check,
                    self._duration,
                    standby=place >= free and result.id not in jobs,
                    job=jobs.get(result.id),
                )
                for place, result in enumerate(leased)
            ], True

        return await self._database.write(work)

    async def _pick(
        self, tx: Transaction, execution: Execution, bucket: Bucket, count: int, suspects: int, *, has_lost: bool
    ) -> tuple[list[Result], int]:
        """Lock up to ``count`` ready results; lost ones first, waiting ones as far as there are places.

        Returns them with how many of them may begin at once: the others stand by.
        """
        in_flight = (await tx.connection.execute(_IN_FLIGHT, {"bucket_id": bucket.id})).scalar_one()
        room = self._places(bucket, tx.now) - int(in_flight or 0)
        free = bucket.calls_allowed(tx.now) - int(in_flight or 0)
        lost: list[Result] = []
        if has_lost:
            expired = {"execution_id": execution.id, "until": tx.now - self._loop_lag(), "count": count}
            lost = [rows.result_from(row) for row in await tx.connection.execute(_PICK_LOST, expired)]
            free += len(lost)  # they still count as in flight
        count = min(count - len(lost), room)
        if count <= 0:
            return lost, free
        below = _crashes_below(suspects)
        ready = {"execution_id": execution.id, "until": tx.now, "count": count, "crashes_below": below}
        return [*lost, *map(rows.result_from, await tx.connection.execute(_PICK_WAITING, ready))], free

    async def _lease(
        self, tx: Transaction, execution: Execution, picked: Sequence[Result], day: DayRoom | None, suspects: int
    ) -> tuple[list[Result], dict[str, Attempt]]:
        """Lease what is picked, as far as caps and policy let it; returns it with the attempts whose task is still out."""
        leased: list[Result] = []
        lost = [result for result in picked if result.state is ResultState.PROCESSING]
        failed, out = await ledger_sql.close_lost(tx, execution, lost)
        for result in picked:
            if result.id in failed:
                continue
            if result.id in out:  # paid for and reserved already: it is only asked for
                out[result.id].lease_id = self._give(execution, result, tx.now)
                leased.append(result)
                continue
            suspect = is_suspect(result)
            if not spending_sql.has_room(execution, day) or (suspect and suspects <= 0):
                if result.state is ResultState.PROCESSING:  # the lost one waits like the others
                    result.drop_lease()
                    result.ready_at = tx.now
                    execution.move(result, ResultState.PENDING)
                continue
            suspects -= suspect
            spending_sql.reserve(execution, result, day)
            self._give(execution, result, tx.now)
            leased.append(result)
        if leased and execution.state is ExecutionState.PENDING:
            execution.state = ExecutionState.PROCESSING
            execution.start_time = execution.start_time or tx.now
            execution.touch()
        await rows.save(tx, list(picked))
        await rows.save(tx, list(out.values()))
        return leased, out

    def _give(self, execution: Execution, result: Result, now: datetime) -> str:
        lease_id = result.lease_id = str(uuid.uuid4())
        result.ready_at = result.lease_expires_at = now + self._duration
        execution.move(result, ResultState.PROCESSING)
        return lease_id

    async def extend(self, leases: Sequence[LeaseRef]) -> list[LeaseRef]:
        """Extend leases to their full length from now; returns the lost ones."""

        async def work(tx: Transaction) -> list[LeaseRef]:
            statement = rows.for_update(
                select(results.c.id, results.c.lease_id, results.c.state)
                .where(results.c.id.in_({ref.result_id for ref in leases}))
                .order_by(results.c.id)
            )
            # By lease, not by result: somebody may hold an old and a new lease of the same one.
            current = {
                LeaseRef(row.id, row.lease_id): row.state
                for row in await tx.connection.execute(statement)
                if row.state in (ResultState.PROCESSING, ResultState.CANCELLED)
            }
            held = {ref.result_id: current[ref] for ref in leases if ref in current}
            await self._database.look_at_clock(tx)  # the rows may have been waited for
            until = tx.now + self._duration
            # A cancelled result's call runs on, so that its picture is kept; but it is never ready again.
            working = [result_id for result_id, state in held.items() if state == ResultState.PROCESSING]
            change = update(results).where(results.c.id.in_(bindparam("ids", expanding=True)))
            if working:
                await tx.connection.execute(change.values(lease_expires_at=until, ready_at=until), {"ids": working})
            if len(working) < len(held):
                late = [result_id for result_id in held if result_id not in working]
                await tx.connection.execute(change.values(lease_expires_at=until), {"ids": late})
            return [ref for ref in leases if ref not in current]

        return await self._database.write(work) if leases else []

    async def expire_all(self) -> None:
        """Let every lease run out now: at the start of the one process that held them all."""

        async def work(tx: Transaction) -> None:
            held = (results.c.lease_expires_at > tx.now) & results.c.lease_id.is_not(None)
            await tx.connection.execute(
                update(results)
                .where(held, results.c.state == ResultState.PROCESSING)
                .values(lease_expires_at=tx.now, ready_at=tx.now)
            )
            await tx.connection.execute(
                update(results).where(held, results.c.state == ResultState.CANCELLED).values(lease_expires_at=tx.now)
            )

        await self._database.write(work)

    async def resume_due(self) -> list[str]:
        """Resume executions whose pause ends by itself by now (a daily quota has reset); returns their ids."""
        due = (executions.c.state == ExecutionState.PAUSED, executions.c.resume_time.is_not(None))
        async with self._database.read() as tx:
            query = select(executions.c.id).where(*due, executions.c.resume_time <= tx.now)
            found = [row.id for row in await tx.connection.execute(query)]
        resumed = []
        for execution_id in found:

            async def work(tx: Transaction, execution_id: str = execution_id) -> bool:
                execution = await rows.lock_execution(tx, execution_id)
                if (
                    execution is None
                    or execution.state is not ExecutionState.PAUSED
                    or execution.resume_time is None
                    or execution.resume_time > tx.now
                ):
                    return False
                execution.resume()
                await rows.save(tx, [execution])
                return True

            if await self._database.write(work):
                resumed.append(execution_id)
        return resumed


def _crashes_below(suspects: int) -> int:
    return _ANY_CRASHES if suspects > 0 else SUSPECT_CRASHES


async def _key_of(tx: Transaction, execution: Execution) -> tuple[str, EncryptedKey] | None:
    if execution.credential_id is None:
        return None
    row = (await tx.connection.execute(_KEY, {"credential_id": execution.credential_id})).one()
    return None if row.record is None else (row.id, rows.key_from_record(row.record))
