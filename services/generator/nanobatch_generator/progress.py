"""Live progress: one hub per watched execution, however many watch it, and a guess a second about what runs here."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import math
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

from nanobatch_generator.domain import Estimate, RevisionUnknownError, Viewer, WatchMovedError
from nanobatch_generator.hub import Hub
from nanobatch_generator.latency import Latencies, estimate
from nanobatch_generator.ports import Changes, Messages, Peers
from nanobatch_generator.running import InFlight, Phase
from nanobatch_runtime.clock import Clock
from nanobatch_runtime.lifecycle import check_cancelled

_TICK = timedelta(seconds=1)
# Guesses are spread over the tick: all of them at once to all watchers would hold up a commit's event by tens of ms.
_PARTS = 10
# And with many results in flight each of them gets its guess less often than every tick.
_MOST_PER_PART = 4
# What other generators are told is spread likewise, in fewer messages.
_PEER_PARTS = 4
# An execution that nobody watches elsewhere is told of again after so many ticks.
_UNHEARD_TICKS = 3
# A page that reloads comes back within this time to a hub that is still warm.
_LINGER = timedelta(seconds=2)
_PATIENCE = timedelta(seconds=30)


class Progress:
    """Lets watchers in, and owns the hubs."""

    def __init__(
        self,
        *,
        changes: Changes,
        messages: Messages,
        in_flight: InFlight,
        latencies: Latencies,
        clock: Clock,
        peers: Peers | None = None,
        tick: timedelta = _TICK,
        linger: timedelta = _LINGER,
        patience: timedelta = _PATIENCE,
        lasting: timedelta = timedelta(minutes=5),
    ) -> None:
        """``tick`` between guesses; ``patience`` with an outage of storage before watchers are sent elsewhere.

        A watch ends resumably after ``lasting``: the next one may begin at a newer generator.
        """
        self._changes = changes
        self._messages = messages
        self._in_flight = in_flight
        self._latencies = latencies
        self._clock = clock
        self._peers = peers
        self._tick = tick.total_seconds()
        self._linger = linger.total_seconds()
        self._patience = patience
        self._lasting = lasting
        self._hubs: dict[str, tuple[Hub, asyncio.Task[None]]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._moved = False

    async def run(self) -> None:
        """Own the hubs and give their guesses until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            if self._peers is not None:
                tasks.create_task(self._tell(self._peers), name="progress-peers")
            for turn in itertools.count():
                await asyncio.sleep(self._tick / _PARTS)
                await self._guess(turn)

    async def watch(self, viewer: Viewer, execution_id: str, after_revision: int) -> AsyncGenerator[object]:
        """Replicate an execution to one watcher; see :meth:`Hub.watch`. Each watcher is checked for itself.

        Raises NanobatchError: NOT_FOUND where the viewer may not see it, RevisionUnknownError where ``after_revision``
        was never given out, WatchMovedError while this generator drains.
        """
        known = await self._changes.revision(viewer, execution_id)
        if after_revision > known:
            message = f"Revision {after_revision} was never given out; the highest one is {known}."
            raise RevisionUnknownError(message, metadata={"revision": str(known)})
        if self._moved or self._tasks is None:
            message = "This generator is stopping; watch again from the revision given."
            raise WatchMovedError(message, metadata={"revision": str(after_revision)})
        hub = self._hub(execution_id, self._tasks)
        try:
            lasting = self._lasting * random.uniform(0.9, 1)  # noqa: S311  # spreads load, guards nothing
            async with aclosing(hub.watch(after_revision, lasting=lasting)) as updates:
                async for update in updates:
                    yield update
        finally:
            if not hub.watched:
                asyncio.get_running_loop().call_later(self._linger, self._close_unwatched, hub)

    def drain(self) -> None:
        """End all watches resumably, and let nobody in any more."""
        self._moved = True
        for hub, _ in self._hubs.values():
            hub.move()

    def _hub(self, execution_id: str, tasks: asyncio.TaskGroup) -> Hub:
        found = self._hubs.get(execution_id)
        if found is not None and not found[0].ended:
            return found[0]
        hub = Hub(execution_id, self._changes, self._messages, patience=self._patience)
        # In a context of its own: the first watcher's deadline is not the subscription's.
        task = tasks.create_task(self._follow(hub), name=f"hub-{execution_id}", context=contextvars.Context())
        task.add_done_callback(lambda _: self._forget(hub))
        self._hubs[execution_id] = hub, task
        return hub

    async def _follow(self, hub: Hub) -> None:
        if self._peers is None:
            return await hub.follow()
        with self._peers.listening(hub.execution_id, hub.estimate_calls):
            return await hub.follow()

    def _forget(self, hub: Hub) -> None:
        found = self._hubs.get(hub.execution_id)
        if found is not None and found[0] is hub:
            del self._hubs[hub.execution_id]

    def _close_unwatched(self, hub: Hub) -> None:
        found = self._hubs.get(hub.execution_id)
        if found is not None and found[0] is hub and not hub.watched:
            found[1].cancel()
            self._forget(hub)

    async def _guess(self, turn: int) -> None:
        watched = [hub for hub, _ in self._hubs.values() if hub.watched]
        running = {hub: self._in_flight.of_execution(hub.execution_id) for hub in watched}
        for model in {work.lease.model for works in running.values() for work in works}:
            await self._latencies.refresh(model)
        now = self._clock.now()
        for hub, works in running.items():
            parts = max(_PARTS, math.ceil(len(works) / _MOST_PER_PART))
            guesses = [
                estimate(work.lease.ref.result_id, work.elapsed, self._latencies.of(work.lease.model))
                for work in works
                if work.phase is not Phase.PREPARING and hash(work.lease.ref) % parts == turn % parts
            ]
            hub.estimate(guesses, now, idle=not works)

    async def _tell(self, peers: Peers) -> None:
        """Tell other generators of what runs here, where somebody watches it there."""
        unheard: dict[str, int] = {}
        for turn in itertools.count():
            await asyncio.sleep(self._tick / _PEER_PARTS)
            check_cancelled()
            by_execution: dict[str, list[Estimate]] = {}
            for work in self._in_flight:
                if work.phase is Phase.PREPARING or hash(work.lease.ref) % _PEER_PARTS != turn % _PEER_PARTS:
                    continue
                guess = estimate(work.lease.ref.result_id, work.elapsed, self._latencies.of(work.lease.model))
                by_execution.setdefault(work.lease.execution_id, []).append(guess)
            unheard = {name: until for name, until in unheard.items() if until > turn}
            for execution_id, guesses in by_execution.items():
                if execution_id not in unheard and not await peers.tell(execution_id, guesses):
                    unheard[execution_id] = turn + _UNHEARD_TICKS * _PEER_PARTS
