"""How long a run still takes, guessed from what was seen of it. Pure: the time is passed in."""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from nanobatch_client.models import (
    Execution,
    ExecutionState,
    ExecutionUpdate,
    ProgressUpdate,
    Result,
    ResultState,
    ResultUpdate,
    Stats,
    Update,
    Waiting,
)

_ENOUGH = 5
"""Durations from which something may be concluded."""
_LATEST = 40
"""Begins and ends from which it is told how many calls are out at a time: what a run did long ago says little."""
_LONGER = 1.3
"""What a call that has outlasted all others is taken to need, as a multiple of its age."""
_GOLDEN = (5**0.5 - 1) / 2
"""Its multiples fall evenly on the unit interval, whatever their number (the Weyl sequence of the golden ratio)."""
_ENDED = frozenset({ResultState.COMPLETED, ResultState.FAILED})


class TimeToGo:
    """Follows a run's updates and guesses when it will have ended.

    The rest is played out: what waits takes what other calls of this run took, as many at a time as of late. What is out
    takes as long as those of them did that took longer, and one that has outlasted them all a third of what it has
    taken: calls are uneven, and the slowest one decides.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._execution: Execution | None = None
        self._stats: Stats | None = None
        self._states: dict[str, ResultState] = {}
        self._durations: dict[str, float] = {}  # seconds that the last call took, by result
        self._begun: dict[str, datetime] = {}  # what is out
        self._given: dict[str, datetime] = {}  # when it should end, as a generator guesses
        self._out: deque[tuple[datetime, int]] = deque(maxlen=_LATEST)  # since when how many calls are out
        self._waiting: Waiting | None = None
        self._told: datetime | None = None  # the end of it all, where the server says so itself

    def apply(self, update: Update, now: datetime) -> None:
        """Take an update in that came ``now``."""
        self._stats = update.stats
        match update:
            case ExecutionUpdate():
                self._execution = update.execution
            case ResultUpdate():
                self._apply_result(update.result, now)
            case ProgressUpdate() if not update.progress.result_id:
                self._waiting = update.progress.waiting
                self._told = None if update.progress.eta is None else now + update.progress.eta
            case ProgressUpdate():
                progress = update.progress
                if progress.eta is not None:
                    self._given[progress.result_id] = now + progress.eta

    def at(self, now: datetime) -> timedelta | None:
        """Return the guess, or None where there is nothing to go, nothing to guess from, or a pause."""
        stats, execution = self._stats, self._execution
        if stats is None or execution is None or execution.state is ExecutionState.PAUSED or execution.state.is_final:
            return None
        if not stats.pending + stats.processing:
            return None
        if self._told is not None and self._told > now:
            return self._told - now
        ages = {name: (now - begun).total_seconds() for name, begun in self._begun.items()}
        given = [(self._given[name] - now).total_seconds() for name in ages if name in self._given]
        if len(self._durations) >= _ENOUGH:
            seen = _Durations(self._durations.values(), ages.values())
            rests = [seen.rest(age) for age in ages.values()]
        elif ages and len(given) == len(ages) and not stats.pending:
            seen, rests = _Durations(self._durations.values(), ()), [max(0.0, rest) for rest in given]
        else:
            return None
        held = self._waiting.until if self._waiting is not None else None
        wait = max(0.0, (held - now).total_seconds()) if held is not None else 0.0
        return timedelta(seconds=wait + _played_out(rests, stats.pending, seen, self._lanes(now)))

    def _apply_result(self, result: Result, now: datetime) -> None:
        before = self._states.get(result.id)
        self._states[result.id] = result.state
        if ResultState.PROCESSING in {before, result.state}:
            self._out.append((now, self._stats.processing if self._stats else 0))
        if result.state is ResultState.PROCESSING:
            if before is not ResultState.PROCESSING:
                self._begun[result.id] = now
        else:
            self._begun.pop(result.id, None)
            self._given.pop(result.id, None)
        if result.state not in _ENDED:
            return
        if result.processing_time is not None:
            self._durations[result.id] = result.processing_time.total_seconds()
        if before is not None and before not in _ENDED:
            self._waiting = None

    def _lanes(self, now: datetime) -> int:
        """Return how many calls are out at a time, of late: moments between an end and the next begin weigh nothing."""
        if not self._out:
            return 1
        ends = [*[when for when, _ in self._out][1:], now]
        spans = [(end - when).total_seconds() for (when, _), end in zip(self._out, ends, strict=True)]
        if sum(spans) <= 0:
            return max(1, *(count for _, count in self._out))
        weighted = sum(count * span for (_, count), span in zip(self._out, spans, strict=True))
        return max(1, round(weighted / sum(spans)))


class _Durations:
    """How long calls take, seconds: from those that have ended, and from how long those have taken that are out.

    Who looks at ended calls alone sees the quick ones first and is too hopeful. What is out is a censored observation: its
    weight goes to what is longer (Efron's form of the Kaplan-Meier estimator). One that has outlasted all others is taken
    to need a third more than it has taken.
    """

    def __init__(self, ended: Iterable[float], out: Iterable[float]) -> None:
        rows = sorted([(seconds, True) for seconds in ended] + [(seconds, False) for seconds in out])
        self.values: list[float] = []
        self._weights: list[float] = []
        weight = 1.0
        for place, (seconds, has_ended) in enumerate(rows):
            right = len(rows) - place - 1
            if has_ended or not right:
                self.values.append(seconds if has_ended else seconds * _LONGER)
                self._weights.append(weight)
            else:
                weight += weight / right
        self._sums = list(itertools.accumulate(self._weights))

    def rest(self, age: float) -> float:
        """Return what a call of that age still takes, on average."""
        first = bisect.bisect_left(self.values, age)
        weight = sum(self._weights[first:])
        if not weight:
            return age * (_LONGER - 1)
        rows = zip(self.values[first:], self._weights[first:], strict=True)
        return sum(value * share for value, share in rows) / weight - age

    def quantile(self, share: float) -> float:
        """Return what that share of the calls does not outlast."""
        return self.values[min(bisect.bisect_left(self._sums, share * self._sums[-1]), len(self.values) - 1)]


def _played_out(rests: Sequence[float], pending: int, durations: _Durations, lanes: int) -> float:
    """Return when the last one ends where each lane takes the next one as soon as it is free.

    ``rests`` are what the calls that are out still take; those that wait take what others took, the quick and the slow ones
    mixed, and always mixed alike: a guess must not jump about.
    """
    free = [0.0] * max(0, lanes - len(rests)) + list(rests)
    heapq.heapify(free)
    last = max(free, default=0.0)
    for number in range(pending):
        end = free[0] + durations.quantile((number + 1) * _GOLDEN % 1)
        heapq.heapreplace(free, end)
        last = max(last, end)
    return last
