"""Leases out of the database. The same statements serve SQLite and PostgreSQL (docs/adr/0003-one-lease-statement.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from sqlalchemy import BindParameter, bindparam, case, func, literal_column, select, update

from nanobatch_storage import pacing, quota
from nanobatch_storage.adapters import extending_sql, rows, starting_sql
from nanobatch_storage.adapters.batches import Batches
from nanobatch_storage.adapters.database import Database, Transaction
from nanobatch_storage.adapters.lost_sql import EVERY as LOOK_FOR_LOST_EVERY
from nanobatch_storage.adapters.lost_sql import LostLeases
from nanobatch_storage.adapters.picking_sql import UNSUSPECTED, crashes_below
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.tables import (
    PENDING,
    UtcDateTime,
    active_executions,
    buckets,
    executions,
    live_executions,
    results,
)
from nanobatch_storage.adapters.taking_sql import Order, Taking, in_flight
from nanobatch_storage.domain import (
    RUNNABLE_EXECUTION_STATES,
    Bucket,
    ExecutionState,
    Lease,
    LeaseRef,
    ResultState,
    WaitReason,
)
from nanobatch_storage.fairness import Candidate, Turns, share
from nanobatch_storage.policy import is_suspect
from nanobatch_storage.ports_queue import Taken

# Statements are built once: SQLAlchemy remembers the compiled form, and building one costs more than running it.
_NOW: BindParameter[datetime] = bindparam("now", type_=UtcDateTime)
_LIVE = live_executions.c
_WAITING = (results.c.execution_id == _LIVE.id) & PENDING & UNSUSPECTED
# In the prompts' order, so that what waits no more, whose index entries an old snapshot keeps, is not met on the way. Below the
# first that is known to wait there is something only where the version before has brought it back.
_READY, _BELOW = (
    select(results.c.ready_at)
    .where(_WAITING, results.c.ready_at <= _NOW, *bound)
    .order_by(results.c.batch_index.desc(), results.c.variation.desc())
    .limit(literal_column("1"))
    .scalar_subquery()
    for bound in ([results.c.batch_index >= _LIVE.first_pending], [])
)
_LATER = select(func.min(results.c.ready_at)).where(_WAITING, results.c.ready_at > _NOW).scalar_subquery()
_MAY_WAIT = _LIVE.state.in_(sorted(RUNNABLE_EXECUTION_STATES)) & (_LIVE.pending > 0)
_SURVEY = Prepared(
    select(
        _LIVE.id,
        _LIVE.user_id,
        _LIVE.bucket_id,
        _LIVE.state,
        _LIVE.pending,
        _LIVE.processing,
        _LIVE.create_time,
        in_flight().label("in_flight"),
        (_LIVE.open_attempts - _LIVE.finishing).label("out"),
        case((_MAY_WAIT, func.coalesce(_READY, _LATER, _BELOW))).label("waiting_since"),
    )
)
# Not by a list of ids: a text as long as that is parsed anew each time.
_BUCKETS = Prepared(select(buckets).where(buckets.c.id.in_(select(active_executions.c.bucket_id))))
_MOST = 100
"""Results leased in one transaction, where several ask together."""
_AHEAD = timedelta(seconds=1)
"""What may start within this time is leased now."""


class Asked(NamedTuple):
    """What one generator asks for."""

    slots: int
    suspects: int
    """So many of the results may be suspects."""


def dealt_among(asked: Sequence[Asked], leases: Sequence[Lease]) -> list[list[Lease]]:
    """Deal leases out in turns, so that few results come to many generators; suspects only to those who take them."""
    hands: list[list[Lease]] = [[] for _ in asked]
    suspects = [one.suspects for one in asked]
    for lease in sorted(
        leases, key=lambda lease: not is_suspect(lease.result)
    ):  # the choosy ones first; stable otherwise
        may = [
            at
            for at, one in enumerate(asked)
            if len(hands[at]) < one.slots and (suspects[at] or not is_suspect(lease.result))
        ]
        at = min(may, key=lambda at: len(hands[at]))
        suspects[at] -= is_suspect(lease.result)
        hands[at].append(lease)
    return hands


def _together(asked: Sequence[Asked]) -> Iterator[Sequence[Asked]]:
    """Part those who ask so that no transaction leases more than one of them could ask for alone."""
    begin = 0
    for end in range(1, len(asked) + 1):
        if end == len(asked) or sum(one.slots for one in asked[begin : end + 1]) > _MOST:
            yield asked[begin:end]
            begin = end


class _Active(NamedTuple):
    """A row of :data:`_SURVEY`: of these there are many, and each is looked at several times."""

    id: str
    user_id: str
    bucket_id: str
    state: str
    pending: int
    processing: int
    create_time: datetime
    in_flight: int
    out: int
    waiting_since: datetime | None


@dataclass(slots=True)
class _Survey:
    candidates: list[Candidate]
    user_in_flight: Counter[str]
    room: dict[str, int]
    look_again_at: datetime | None
    lost: Mapping[str, int] = field(default_factory=dict)
    """How many leases of an execution have run out."""
    put_off: dict[str, datetime] = field(default_factory=dict)
    """Buckets whose pace lets no call start before a time that is not near."""

    def look_again_by(self, when: datetime) -> None:
        """Note that something may be to be done then."""
        self.look_again_at = min(when, self.look_again_at or when)


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
        self._database = database
        self._taking = Taking(database, duration=duration, ahead=ahead, loop_lag=loop_lag)
        self._loop_lag = loop_lag
        self._turns = Turns()
        self._lost = LostLeases()
        self._extensions: Batches[Sequence[LeaseRef], list[LeaseRef]] = Batches(
            database, partial(extending_sql.extend, database, duration)
        )
        self._takes: Batches[Asked, Taken] = Batches(database, self._take)

    async def take(self, slots: int, suspects: int = 0) -> Taken:
        """Lease up to ``slots`` results, at most ``suspects`` of them suspects: fairly, inside windows and caps."""
        return await self._takes.do(Asked(slots, min(suspects, slots)))

    async def _take(self, asked: Sequence[Asked]) -> list[Taken | Exception]:
        """Lease for all who ask at once, and deal it out among them."""
        given: list[Taken | Exception] = []
        for some in _together(asked):
            taken = await self._take_together(sum(one.slots for one in some), sum(one.suspects for one in some))
            hands = dealt_among(some, taken.leases)
            told = [taken.touched, *[()] * (len(some) - 1)]  # once is enough
            given += [replace(taken, leases=tuple(hand), touched=what) for hand, what in zip(hands, told, strict=True)]
        return given

    async def _take_together(self, slots: int, suspects: int) -> Taken:
        async with self._database.read() as tx:
            survey = await self._survey(tx, suspects)
            now = tx.now
        waiting = {candidate.bucket_id for candidate in survey.candidates}
        for bucket_id in waiting & survey.put_off.keys():
            await self._put_off(bucket_id, survey.put_off[bucket_id])
        dealt = share(
            survey.candidates,
            slots=slots,
            user_in_flight=survey.user_in_flight,
            room=survey.room,
            turns=self._turns,
        )
        if not dealt:
            return Taken((), (), survey.look_again_at, now)
        chosen = {one.execution_id: one for one in survey.candidates if one.execution_id in dealt}
        orders = [Order(chosen[id_], count, id_ in survey.lost) for id_, count in dealt.items()]
        if any(order.has_lost for order in orders):
            self._lost.look_anew()

        async def work(tx: Transaction) -> tuple[list[Lease], list[str]]:
            return await self._taking.take(tx, orders, suspects)

        leases, touched = await self._database.write(work)
        return Taken(tuple(leases), tuple(touched), survey.look_again_at, now)

    async def _survey(self, tx: Transaction, suspects: int) -> _Survey:
        names = {"crashes_below": crashes_below(suspects), "now": tx.now}
        active = [_Active._make(row) for row in await tx.connection.execute(_SURVEY, names)]
        survey = _Survey([], Counter(), {}, None)
        busy: Counter[str] = Counter()
        out: Counter[str] = Counter()
        for row in active:
            survey.user_in_flight[row.user_id] += row.in_flight
            busy[row.bucket_id] += row.in_flight
            out[row.bucket_id] += row.out
        found = await tx.connection.execute(_BUCKETS)
        by_id = {row.id: rows.bucket_from(row) for row in found}
        for bucket in by_id.values():
            survey.room[bucket.id] = self._room(bucket, busy[bucket.id], tx.now)
            if quota.is_learned(bucket) and survey.room[bucket.id] > 0 and not bucket.is_cooling(tx.now):
                await self._pace(tx, survey, bucket, busy[bucket.id], out[bucket.id])
        able = {
            row.id
            for row in active
            if row.state in RUNNABLE_EXECUTION_STATES
            and row.bucket_id in by_id  # otherwise it ended between the two statements
            and not by_id[row.bucket_id].is_cooling(tx.now)
        }
        survey.lost = await self._lost.of(tx, able, until=tx.now - self._loop_lag())
        if any(row.processing for row in active if row.id in able):
            survey.look_again_by(tx.now + LOOK_FOR_LOST_EVERY)
        for row in active:
            if row.state not in RUNNABLE_EXECUTION_STATES or row.bucket_id not in by_id:  # it ended between the two
                continue
            cooling_until = by_id[row.bucket_id].cooldown_until
            lost = survey.lost.get(row.id, 0)
            when = tx.now if lost else row.waiting_since
            if when is None and row.processing and row.id not in able:
                when = cooling_until
            if when is None:
                continue
            when = max(when, cooling_until) if cooling_until else when
            if when > tx.now:
                survey.look_again_by(when)
                continue
            # A lost lease still counts as in flight, and neither takes room nor puts anybody behind others: were it to, what
            # a dead generator held would wait until everything else is done.
            survey.room[row.bucket_id] += lost
            survey.user_in_flight[row.user_id] -= lost
            in_flight = max(0, row.in_flight - lost)
            survey.candidates.append(
                Candidate(
                    row.id, row.user_id, row.bucket_id, in_flight, row.pending + row.processing, row.create_time, lost
                )
            )
        return survey

    def _room(self, bucket: Bucket, in_flight: int, now: datetime) -> int:
        """How many more of a bucket to lease now. Those that only stand by are leased a few at a time."""
        room = self._taking.places(bucket, now) - in_flight
        ahead = self._taking.places(bucket, now) - bucket.calls_allowed(now)
        return 0 if in_flight >= bucket.calls_allowed(now) and room < ahead / 2 else room

    async def _pace(self, tx: Transaction, survey: _Survey, bucket: Bucket, in_flight: int, out: int) -> None:
        """Lease only what may start soon: a waiting prompt holds no worker slot."""
        traffic = await starting_sql.traffic_of(tx, bucket, out)
        soon = quota.starts_within(bucket, traffic, tx.now, _AHEAD) - (in_flight - out)
        survey.room[bucket.id] = min(survey.room[bucket.id], max(soon, 0))
        if soon <= 0:
            gap = timedelta(seconds=(1 - soon) / quota.speed(bucket, tx.now))
            start_at = quota.next_start(bucket, traffic, tx.now)
            when = max(tx.now + gap, start_at - _AHEAD)
            survey.look_again_by(when)
            if start_at > tx.now + starting_sql.HELD:
                survey.put_off[bucket.id] = start_at

    async def _put_off(self, bucket_id: str, start_at: datetime) -> None:
        """Let nobody look before the pace lets a call start, and let readers know until when."""

        async def work(tx: Transaction) -> None:
            bucket = await rows.lock_bucket(tx, bucket_id)
            if not bucket.is_cooling(tx.now):
                pacing.cool(bucket, start_at, WaitReason.PACED)
                await rows.save(tx, [bucket])

        await self._database.write(work)

    async def extend(self, leases: Sequence[LeaseRef]) -> list[LeaseRef]:
        """Extend leases to their full length from now; returns the lost ones."""
        return await self._extensions.do(leases) if leases else []

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
        self._lost.look_anew()

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
