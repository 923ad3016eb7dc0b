"""A sliding window of work: each freed slot asks for the next lease at once, and no batch waits for its slowest.

One ``LeaseResults`` is in flight at a time, and it is never cancelled for having become too small: a cancelled poll can
lose the leases of an answer that is on its way. It need not be: a poll only waits while there is nothing to do, and the
moment there is, it answers with what it asked for, and the next poll asks for all slots freed since. So a poll that was
begun with one free slot delays the other 31 by one round trip.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from datetime import timedelta

import structlog

from nanobatch_generator.domain import Charged, Failure, FailureClass, Lease, LeaseRef
from nanobatch_generator.finish import Replay
from nanobatch_generator.heartbeat import Heartbeat
from nanobatch_generator.patience import patiently, pause
from nanobatch_generator.ports import LeaseSource
from nanobatch_generator.render import Render
from nanobatch_generator.running import InFlight, Phase, Work
from nanobatch_generator.turnover import Turnover
from nanobatch_runtime.errors import NanobatchError
from nanobatch_runtime.failpoints import failpoint
from nanobatch_runtime.metrics import LEASES_LOST

_log = structlog.get_logger("nanobatch.worker")

_MOST_PER_POLL = 100
_POLL_WAIT = timedelta(seconds=20)
# A poll that had to ask for fewer suspects than may run ends soon, because the next one may ask for more.
_NARROW_POLL_WAIT = timedelta(seconds=2)
# A storage that answers "nothing" at once instead of waiting must not be asked in a tight circle.
_QUICK_EMPTY = timedelta(seconds=0.5)
# What is still told to storage after the grace of a stop has run out.
_LAST_WORDS = 3.0


class Worker:
    """Leases as long as slots are free, and owns the task of each lease."""

    def __init__(
        self,
        *,
        leases: LeaseSource,
        render: Render,
        replay: Replay,
        heartbeat: Heartbeat,
        in_flight: InFlight,
        turnover: Turnover,
        concurrency: int,
        spare_processes: int = 1,
        poll_wait: timedelta = _POLL_WAIT,
    ) -> None:
        """At most ``concurrency`` calls at a time, and as many finished ones besides that are being stored.

        At most ``spare_processes`` of the calls are those of suspects; more of them are not even leased.
        """
        self._leases = leases
        self._render = render
        self._replay = replay
        self._heartbeat = heartbeat
        self._in_flight = in_flight
        self._turnover = turnover
        self._concurrency = concurrency
        self._spare_processes = spare_processes
        self._poll_wait = poll_wait
        self._poll: asyncio.Task[list[Lease]] | None = None
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Replay the spool, then lease until drained."""
        await self._replay_spool()
        async with asyncio.TaskGroup() as tasks:
            await self._lease_on(tasks)

    def lost(self, ref: LeaseRef) -> None:
        """Abort the call under a lost lease. A picture that has arrived goes on: the fence decides, it is paid for."""
        work = self._in_flight.find(ref)
        if work is not None and work.phase is not Phase.FINISHING:
            LEASES_LOST.inc()
            _log.warning("lease.lost", result=ref.result_id, phase=work.phase.name)
            work.abort()

    async def drain(self, grace: timedelta) -> None:
        """Lease no more, give back what was not begun, let calls end within ``grace``, report those that did not."""
        self._stop.set()
        self._changed.set()
        if self._poll is not None:
            # An answer that is just on its way is lost with it: such a lease returns by itself, uncharged, when it expires.
            self._poll.cancel()
        deadline = time.monotonic() + grace.total_seconds()
        unstarted = [work for work in self._in_flight if work.phase in {Phase.PREPARING, Phase.WAITING}]
        await _aborted(unstarted)
        # What stays unreleased may have an open attempt, and counts as a crash: worth waiting for a busy storage.
        await self._release([work.lease.ref for work in unstarted], max(_LAST_WORDS, grace.total_seconds()))
        await _wait(self._in_flight, deadline - time.monotonic())
        late = list(self._in_flight)
        await _aborted(late)
        await asyncio.gather(*(self._report(work) for work in late if work.phase is Phase.CALLING))

    async def _replay_spool(self) -> None:
        entries = await self._replay.entries()
        for entry in entries:
            self._heartbeat.hold(entry.ref, entry.lease_duration)
        for entry in entries:
            if self._stop.is_set():
                return
            await self._replay.run(entry)
            self._heartbeat.drop(entry.ref)

    async def _lease_on(self, tasks: asyncio.TaskGroup) -> None:
        failures = 0
        while not self._stop.is_set():
            free = self._free()
            if not free:
                self._changed.clear()
                await self._changed.wait()
                continue
            asked = time.monotonic()
            try:
                leases = await self._polled(free)
            except NanobatchError as error:
                failures += 1
                if failures == 1:
                    _log.warning("storage.unreachable", reason=error.reason, detail=error.message)
                await pause(failures)
                continue
            if failures:
                _log.info("storage.reached", failures=failures)
                failures = 0
            self._turnover.polled(free, len(leases))
            if self._stop.is_set():
                await self._release([lease.ref for lease in leases], _LAST_WORDS)
            elif leases:
                for lease in leases:
                    self._begin(lease, tasks)
            elif time.monotonic() - asked < min(_QUICK_EMPTY, self._poll_wait / 2).total_seconds():
                await pause(1)

    def _free(self) -> int:
        """Return how many to ask for: free slots, and none while a slow storage leaves too many pictures waiting."""
        if self._in_flight.count(Phase.FINISHING) >= self._concurrency:
            return 0
        busy = len(self._in_flight) - self._in_flight.count(Phase.FINISHING) - self._in_flight.count(Phase.WAITING)
        return min(_MOST_PER_POLL, self._concurrency - busy)

    async def _polled(self, free: int) -> list[Lease]:
        # A task of its own, so that a drain can end the wait without ending this loop.
        spare = self._spare_processes - sum(work.lease.suspect for work in self._in_flight)
        wait = min(self._poll_wait, _NARROW_POLL_WAIT) if spare < self._spare_processes else self._poll_wait
        self._poll = asyncio.create_task(self._leases.lease(free, wait, spare), name="lease-poll")
        try:
            return await self._poll
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not self._stop.is_set() or (current is not None and current.cancelling()):
                raise
            return []
        finally:
            self._poll.cancel()
            self._poll = None

    def _begin(self, lease: Lease, tasks: asyncio.TaskGroup) -> None:
        work = Work(lease, notify=self._changed.set)
        self._in_flight.add(work)
        self._heartbeat.hold(lease.ref, lease.duration)
        failpoint("leased")
        work.task = tasks.create_task(self._render.run(work), name=f"render-{lease.ref.result_id}")
        work.task.add_done_callback(lambda _: self._ended_work(work))

    def _ended_work(self, work: Work) -> None:
        self._heartbeat.drop(work.lease.ref)
        self._in_flight.remove(work)
        self._changed.set()

    async def _release(self, refs: list[LeaseRef], seconds: float) -> None:
        if not refs:
            return
        try:
            async with asyncio.timeout(seconds):
                await patiently(lambda: self._leases.release(refs))
            _log.info("lease.released", count=len(refs))
        except (NanobatchError, TimeoutError) as error:  # they return by themselves when they expire
            _log.warning("lease.unreleased", count=len(refs), error=str(error))

    async def _report(self, work: Work) -> None:
        message = "The generator was stopped during the call; it may have been charged."
        failure = Failure(FailureClass.UNKNOWN, "STOPPED", message, charged=Charged.MAYBE, processing_time=work.elapsed)
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._leases.fail(work.lease.ref, work.attempt_id, failure)
        except (NanobatchError, TimeoutError) as error:  # storage closes it as MAYBE when the lease expires
            _log.warning("result.untold", result=work.lease.ref.result_id, error=str(error))


async def _aborted(works: list[Work]) -> None:
    for work in works:
        work.abort()
    await _wait(works, _LAST_WORDS)


async def _wait(works: Iterable[Work], seconds: float) -> None:
    tasks = [work.task for work in works if work.task is not None]
    if tasks:
        await asyncio.wait(tasks, timeout=max(0.0, seconds))
