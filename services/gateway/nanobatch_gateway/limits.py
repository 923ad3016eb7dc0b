"""How often one user may call: per class of calls and minute, counted together by all gateways.

The counters are in Redis. While it is away, hangs, or has just been emptied, each gateway goes by its own count and lets a
share of the allowance through, so that the sum stays within one and a half times what is allowed: never open, never
shut, and nobody waits for Redis. Each gateway counts its own calls at all times: it is warm when that begins.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from itertools import accumulate
from typing import Protocol

import structlog

from nanobatch_gateway.domain import Caller, TooManyCallsError, TooManyWatchesError
from nanobatch_gateway.ports import Beat, Counters
from nanobatch_runtime.lifecycle import cancel, check_cancelled

_log = structlog.get_logger("nanobatch.limits")

WINDOW = timedelta(minutes=1)
_WINDOW_SECONDS = WINDOW.total_seconds()
_BEAT_SECONDS = 1.0
_SHORTEST_WAIT = 0.001
"""Seconds; who is told less is told to come again at once."""
# How many gateways there may be where Redis was never met since the start.
_UNKNOWN_GATEWAYS = 4
_MOST_KEYS = 20_000


class CallClass(Enum):
    """Calls that cost about the same; each class has an allowance of its own."""

    SPEND = "spend"
    """May lead to calls at a provider, or makes something that stays."""
    WRITE = "write"
    """Uploads, and changes that cost nothing."""
    READ = "read"
    """Looks at what there is."""
    WATCH = "watch"
    """Opens a watch."""


_BY_VERB = {
    "Create": CallClass.SPEND,
    "Retry": CallClass.SPEND,
    "Resume": CallClass.SPEND,
    "Check": CallClass.SPEND,
    "Get": CallClass.READ,
    "List": CallClass.READ,
    "Download": CallClass.READ,
    "Export": CallClass.READ,
    "Estimate": CallClass.READ,
    "Who": CallClass.READ,
    "Watch": CallClass.WATCH,
}


def class_of(method: str) -> CallClass:
    """Return the class of a method by its full name; the verb that the name begins with decides."""
    name = method.rpartition("/")[2]
    return next((found for verb, found in _BY_VERB.items() if name.startswith(verb)), CallClass.WRITE)


class Limits(Protocol):
    """Says whether a call may be made."""

    async def admit(self, caller: Caller, call_class: CallClass) -> None:
        """Count a call. Raises TooManyCallsError, which says when to come again."""
        ...


@dataclass(slots=True)
class _Recent:
    """What was let through of late: by second, the oldest first, and in all."""

    seconds: deque[tuple[int, int]] = field(default_factory=deque)
    total: int = 0

    def forget(self, until: int) -> None:
        while self.seconds and self.seconds[0][0] <= until:
            self.total -= self.seconds.popleft()[1]

    def add(self, second: int) -> None:
        count = self.seconds.pop()[1] if self.seconds and self.seconds[-1][0] == second else 0
        self.seconds.append((second, count + 1))
        self.total += 1


class SlidingWindow:
    """Counts by key over the last minute, to the second.

    Two counters, of which the older fades, would be smaller; but they take calls to be spread evenly over their minute, and
    where a user's came all at its end they let nearly twice the allowance through in the minute that follows.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """``now`` gives seconds."""
        self._now = now
        self._recent: dict[str, _Recent] = {}

    def take(self, key: str, allowance: int) -> float:
        """Count one and return 0, or count nothing and return the seconds until there is room."""
        now = self._now()
        recent = self._of(key, int(now))
        if recent.total < allowance:
            recent.add(int(now))
            return 0.0
        left = accumulate((-count for _, count in recent.seconds), initial=recent.total)
        next(left)
        last = next(second for (second, _), count in zip(recent.seconds, left, strict=True) if count < allowance)
        return max(last + 1 + _WINDOW_SECONDS - now, _SHORTEST_WAIT)

    def note(self, key: str) -> None:
        """Count one that somebody else has let through."""
        second = int(self._now())
        self._of(key, second).add(second)

    def _of(self, key: str, second: int) -> _Recent:
        # A second counts until its last call is a minute old.
        gone = second - int(_WINDOW_SECONDS) - 1
        if key not in self._recent and len(self._recent) >= _MOST_KEYS:
            self._recent = {name: one for name, one in self._recent.items() if one.seconds[-1][0] > gone}
        recent = self._recent.setdefault(key, _Recent())
        recent.forget(gone)
        return recent


class OwnLimits:
    """The limits of a gateway that is the only one."""

    def __init__(self, allowances: Mapping[CallClass, int], *, now: Callable[[], float] = time.monotonic) -> None:
        """``allowances`` are calls a minute and user; 0 is no limit."""
        self._allowances = allowances
        self._window = SlidingWindow(now)

    async def admit(self, caller: Caller, call_class: CallClass) -> None:
        """See :class:`Limits`."""
        if allowance := self._allowances[call_class]:
            wait = self._window.take(f"{call_class.value}:{caller.user_id}", allowance)
            _raise_if(wait, call_class, allowance)


class SharedLimits:
    """The limits of one gateway among several."""

    def __init__(
        self, allowances: Mapping[CallClass, int], counters: Counters, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        """``allowances`` as in :class:`OwnLimits`."""
        self._allowances = allowances
        self._counters = counters
        self._now = now
        self._window = SlidingWindow(now)
        self._gateways = _UNKNOWN_GATEWAYS
        self._epoch: str | None = None
        self._answers = False  # until the first beat has come back
        self._away = False
        self._own_until = -math.inf

    async def admit(self, caller: Caller, call_class: CallClass) -> None:
        """See :class:`Limits`."""
        allowance = self._allowances[call_class]
        if not allowance:
            return
        key = f"{call_class.value}:{caller.user_id}"
        shared = None
        if self._answers:
            shared = await self._counters.take(key, allowance)
            if shared is None:
                self._is_away()  # the next to ask it is the beat, not a caller
        if shared:
            _raise_if(shared, call_class, allowance)
        if shared is None or self._now() < self._own_until:
            share = self.share(allowance)
            _raise_if(self._window.take(key, share), call_class, share)
        else:
            self._window.note(key)

    @property
    def shared(self) -> bool:
        """Whether Redis has answered lately."""
        return self._answers

    def share(self, allowance: int) -> int:
        """Return what this gateway lets through by its own count.

        Where one gateway has let all of the allowance through before Redis went away, the others have their shares
        left: those must not be more than half of it together.
        """
        return max(1, allowance // max(self._gateways, 2 * (self._gateways - 1)))

    def heard(self, beat: Beat | None) -> None:
        """Take in what Redis said of itself; None: it gave no answer."""
        if beat is None:
            self._is_away()
            return
        emptied = self._epoch is not None and beat.epoch != self._epoch
        if emptied or self._away:  # it does not know of the calls of the last minute
            self._own_until = self._now() + _WINDOW_SECONDS
            _log.info("limits.shared_again", after_seconds=_WINDOW_SECONDS)
        owning = self._now() < self._own_until
        # Who has just been emptied knows only of those who have beaten since.
        self._gateways = max(self._gateways, beat.gateways) if owning else max(1, beat.gateways)
        self._epoch, self._away, self._answers = beat.epoch, False, True

    def _is_away(self) -> None:
        """Count alone from now on. However soon it is back, it does not know of what was let through meanwhile."""
        self._answers = False
        if not self._away:
            _log.warning("limits.by_own_count", gateways=self._gateways)
        self._away = True

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[SharedLimits]:
        """Say once a second that this gateway is there, and hear whether Redis is, while the context is open."""
        task = asyncio.create_task(self._beat(), name="limits-beat")
        try:
            yield self
        finally:
            await cancel(task)

    async def _beat(self) -> None:
        while True:
            check_cancelled()
            self.heard(await self._counters.beat())
            await asyncio.sleep(_BEAT_SECONDS)


class WatchStreams:
    """How many watches one user has open at this gateway."""

    def __init__(self, most: int) -> None:
        """At most ``most`` at a time; 0 is no limit."""
        self._most = most
        self._open: Counter[str] = Counter()

    @contextmanager
    def one_of(self, caller: Caller) -> Iterator[None]:
        """Count a watch while the context is open. Raises TooManyWatchesError."""
        user = caller.user_id
        if self._most and self._open[user] >= self._most:
            text = f"You have {self._most} watches open; end one of them, or try again later."
            raise TooManyWatchesError(text, metadata={"limit": str(self._most)}, retry_after=timedelta(seconds=5))
        self._open[user] += 1
        try:
            yield
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]


def _raise_if(wait: float, call_class: CallClass, allowance: int) -> None:
    if not wait:
        return
    text = f"Too many calls: at most {allowance} of this kind a minute. Try again in {math.ceil(wait)} s."
    metadata = {"class": call_class.value, "limit": str(allowance)}
    raise TooManyCallsError(text, metadata=metadata, retry_after=timedelta(seconds=wait))
