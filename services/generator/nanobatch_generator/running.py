"""What this generator is working on just now."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import Enum

from nanobatch_generator.domain import Lease, LeaseRef, Usage


class Phase(Enum):
    """How far the work on a lease is; it decides what an abort may do."""

    PREPARING = "PREPARING"
    """Nothing was sent: the lease can be given back at no cost."""
    CALLING = "CALLING"
    """The call is out, and a slot is taken."""
    WAITING = "WAITING"
    """The provider works on a task whose id is stored: no slot is taken, and any generator can go on asking for it."""
    FINISHING = "FINISHING"
    """The answer is here: the slot is free, and only the fence decides what becomes of the picture."""


class Work:
    """The work on one lease."""

    def __init__(self, lease: Lease, notify: Callable[[], None] = lambda: None) -> None:
        """``notify`` is called whenever the phase changes."""
        self.lease = lease
        self.phase = Phase.PREPARING
        self.attempt_id = ""
        self.usage: Usage | None = None
        """What the provider reported, once it has answered."""
        self.state = ""
        """The result's state after it, once storage has said so."""
        self.task: asyncio.Task[None] | None = None
        self._notify = notify
        self._called: float | None = None
        self._took: timedelta | None = None

    def called(self, attempt_id: str) -> None:
        """Note that the call goes out now, under this attempt."""
        self.attempt_id = attempt_id
        self._called = time.monotonic()
        self._enter(Phase.CALLING)

    def accepted(self, attempt_id: str, elapsed: timedelta) -> None:
        """Note that the attempt's call has become a task, submitted ``elapsed`` ago, and that its id is stored."""
        self.attempt_id = attempt_id
        self._called = time.monotonic() - elapsed.total_seconds()
        self._enter(Phase.WAITING)

    def answered(self, usage: Usage) -> None:
        """Note that the provider has answered with something."""
        self._took = self.elapsed
        self.usage = usage
        self._enter(Phase.FINISHING)

    @property
    def elapsed(self) -> timedelta:
        """How long the call has been out, or took; zero before it."""
        if self._took is not None:
            return self._took
        return timedelta(seconds=time.monotonic() - self._called) if self._called is not None else timedelta(0)

    def abort(self) -> None:
        """Cancel the work's task."""
        if self.task is not None:
            self.task.cancel()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._notify()


class InFlight:
    """All work of this generator, by lease."""

    def __init__(self) -> None:
        """Start with none."""
        self._works: dict[LeaseRef, Work] = {}

    def __len__(self) -> int:
        """How many leases are held."""
        return len(self._works)

    def __iter__(self) -> Iterator[Work]:
        """All of them, as they are now."""
        return iter(list(self._works.values()))

    def add(self, work: Work) -> None:
        """Note new work."""
        self._works[work.lease.ref] = work

    def remove(self, work: Work) -> None:
        """Forget ended work."""
        self._works.pop(work.lease.ref, None)

    def find(self, ref: LeaseRef) -> Work | None:
        """Return the work under that lease, if it still goes on."""
        return self._works.get(ref)

    def of_execution(self, execution_id: str) -> list[Work]:
        """Return the work for one execution."""
        return [work for work in self._works.values() if work.lease.execution_id == execution_id]

    def by_phase(self) -> dict[tuple[str, ...], float]:
        """Return how many are in each phase; may be asked from another thread."""
        counts = Counter(work.phase for work in list(self._works.values()))
        return {(phase.name,): float(counts[phase]) for phase in Phase}

    def count(self, phase: Phase) -> int:
        """Return how many are in ``phase``."""
        return sum(work.phase is phase for work in self._works.values())
