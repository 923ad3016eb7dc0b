"""Generators and a provider in simulated time: what the pacing of storage makes of a quota that it is not told.

No process, no database, no sleep: a run of 300 calls takes milliseconds, and its seed says all of it. What stands between
a decision and its effect in the product (asking for leave, a refusal's way back) is drawn from the seed.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fakes.gemini_quota import Quota

from nanobatch_storage import pacing, quota
from nanobatch_storage.domain import Bucket, Charged, Failure, FailureClass
from nanobatch_storage.policy import BucketEffect
from nanobatch_storage.quota_history import Sent

START = datetime(2026, 7, 1, tzinfo=UTC)


class SlidingWindow(Quota):
    """``calls`` in the last ``seconds``, whenever one asks."""

    def __init__(self, calls: int, seconds: float) -> None:
        """Nothing used."""
        self._calls, self._seconds = calls, seconds
        self._taken: deque[float] = deque()

    def refuse(self, now: float) -> float | None:
        """See the base."""
        while self._taken and self._taken[0] <= now - self._seconds:
            self._taken.popleft()
        if len(self._taken) >= self._calls:
            return self._taken[0] + self._seconds - now
        self._taken.append(now)
        return None

    def earliest(self, count: int, first: float) -> float:
        """See the base."""
        return first + (count - 1) // self._calls * self._seconds


@dataclass(eq=False)
class _Call:
    at: datetime
    refused: bool = False


@dataclass
class Run:
    """A run, and what it came to."""

    quota: Quota
    seed: int
    calls: int = 300
    window: float = 50
    callers: int = 1
    in_flight: int = 50
    latency: tuple[float, float] = (0.5, 1.0)
    hint: Callable[[float], float] | None = float
    """What the provider says of the seconds to wait; None: it says nothing."""
    others: float = 0.0
    """Calls a second that somebody else makes with the same key."""
    change: tuple[float, Quota] | None = None
    """At this second the quota becomes another."""
    sent: int = 0
    refused: int = 0
    seconds: float = 0.0
    accepted_at: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Run it."""
        self._random = random.Random(self.seed)
        self._bucket = Bucket("b", "gemini", "m", "f", self.window, START, None, None, 0, 0, None)
        self._history: list[_Call] = []
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = itertools.count()
        self._waiting, self._out, self._done, self._earliest = self.calls, 0, 0, 0.0
        self._bound = self.quota.earliest(self.calls, 0.0) + sum(self.latency) / 2
        for _ in range(self.callers):
            self._after(0.0, self._ask)
        if self.others:
            self._after(0.0, self._other)
        for now in self._clock():
            self.seconds = now
            if self._done == self.calls:
                break

    @property
    def ratio(self) -> float:
        """Of the time taken to the quota's own bound."""
        return self.seconds / self._bound

    @property
    def share(self) -> float:
        """Of the calls, those that were refused."""
        return self.refused / self.sent

    def _clock(self) -> Iterator[float]:
        while self._events and self._events[0][0] < 7200:
            now, _, act = heapq.heappop(self._events)
            if self.change is not None and now >= self.change[0]:
                self.quota, self.change = self.change[1], None
            act(now)
            yield now

    def _after(self, at: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), act))

    def _other(self, now: float) -> None:
        self.quota.refuse(now)
        self._after(now + self._random.expovariate(self.others), self._other)

    def _ask(self, now: float) -> None:
        """One generator asks for leave for its next call; it asks again after every answer."""
        again = now + self._random.uniform(0.003, 0.02)
        if self._waiting and self._out < min(int(self._bucket.window), self.in_flight):
            at = self._next_start(_time(now))
            if at <= _time(now) + quota.EARLY:
                self._start(at, now)
            else:
                again = max(now, _seconds(at - quota.EARLY)) + self._random.uniform(0.003, 0.03)
        if self._waiting or self._out:
            self._after(again, self._ask)

    def _next_start(self, now: datetime) -> datetime:
        if not quota.is_paced(self._bucket, self._out, now):
            return now
        began = quota.period_start(self._bucket, now)
        used = 0 if began is None else sum(call.at >= began and not call.refused for call in self._history)
        last, before, *_ = [*(call.at for call in reversed(self._history[-2:])), None, None]
        return quota.next_start(self._bucket, quota.Traffic(self._out, last, before, used), now)

    def _start(self, at: datetime, now: float) -> None:
        call = _Call(at)
        self._history.append(call)
        self._waiting, self._out, self.sent = self._waiting - 1, self._out + 1, self.sent + 1
        wait = self.quota.refuse(now + 0.002)
        if wait is None:
            self.accepted_at.append(now)
            self._after(now + self._random.uniform(*self.latency), self._succeeded)
        else:
            hint = None if self.hint is None else timedelta(seconds=self.hint(wait))
            self._after(now + self._random.uniform(0.02, 0.08), lambda then: self._refused(call, hint, then))

    def _succeeded(self, _now: float) -> None:
        self._out, self._done = self._out - 1, self._done + 1
        if pacing.counts(self._bucket, f"{self._random.getrandbits(32):08x}", self._out):
            pacing.succeeded(self._bucket, self._out)

    def _refused(self, call: _Call, hint: timedelta | None, now: float) -> None:
        call.refused = True
        failure = Failure(FailureClass.RATE_LIMITED, "RATE_LIMITED", "", Charged.NO, retry_after=hint)
        history = [Sent(past.at, past.refused) for past in self._history[-quota.MOST_HISTORY :]]
        pacing.refused(
            self._bucket,
            BucketEffect.RATE_LIMITED,
            failure,
            sent_at=call.at,
            now=_time(now),
            out=self._out,
            history=history,
        )
        self._out, self._waiting, self.refused = self._out - 1, self._waiting + 1, self.refused + 1


def _time(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def _seconds(time: datetime) -> float:
    return (time - START).total_seconds()
