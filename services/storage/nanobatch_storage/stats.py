"""How the queue is doing, for operators. No I/O, no protobuf, no SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from nanobatch_runtime.clock import Clock

MOST_COOLING = 100
MOST_TASKS = 100
_SEEN_FOR = timedelta(minutes=1)
_MOST_SEEN = 1_000
_LONGEST_NAME = 128


@dataclass(frozen=True, slots=True)
class CoolingKey:
    """See ``nanobatch.gateway.v1.CoolingKey``."""

    provider: str
    model: str
    reason: str
    until: datetime
    results: int
    """How many wait for nothing else."""


@dataclass(frozen=True, slots=True)
class TaskOut:
    """See ``nanobatch.gateway.v1.TaskOut``."""

    provider: str
    task_id: str
    execution_id: str
    since: datetime
    timeout: timedelta


@dataclass(frozen=True, slots=True)
class QueueStats:
    """See ``nanobatch.gateway.v1.ServerStats``; times are the database's."""

    read_at: datetime
    ready: int
    later: int
    cooling_results: int
    in_flight: int
    expired: int
    oldest_ready: datetime | None
    active: int
    paused: Mapping[str, int]
    cooling: Sequence[CoolingKey]
    tasks_out: int
    tasks: Sequence[TaskOut]


class SeenGenerators:
    """Who asked for work or renewed leases here, lately. In memory: another storage has heard of others."""

    def __init__(self, clock: Clock) -> None:
        """Take the clock of this process."""
        self._clock = clock
        self._seen: dict[str, datetime] = {}

    def note(self, name: str) -> None:
        """Note a call of the generator of that name; an empty one is of a version that tells none."""
        name = name[:_LONGEST_NAME]
        if name and (name in self._seen or len(self._lately()) < _MOST_SEEN):
            self._seen[name] = self._clock.now()

    def lately(self) -> Mapping[str, datetime]:
        """Return who was heard of within the last minute, and when, by name."""
        return dict(sorted(self._lately().items()))

    def _lately(self) -> dict[str, datetime]:
        since = self._clock.now() - _SEEN_FOR
        self._seen = {name: time for name, time in self._seen.items() if time >= since}
        return self._seen
