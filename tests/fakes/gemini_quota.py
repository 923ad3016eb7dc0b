"""Quotas of the fake that nobody is told: a token bucket, or calls a fixed window whose boundaries are its own.

The answer to a call too many is Gemini's, with the time to wait (RetryInfo) or bare; never with the quota itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fakes import gemini_faults as faults


class Quota:
    """What one key may do; times are seconds of a monotonic clock."""

    def refuse(self, now: float) -> float | None:
        """Take a call that arrives now: None, or how long until there is room again."""
        raise NotImplementedError

    def earliest(self, count: int, first: float) -> float:
        """Return when the last of ``count`` calls could have been taken, the first of them at ``first``; as from new."""
        raise NotImplementedError


class TokenBucket(Quota):
    """``rate`` calls a second, and ``burst`` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        """Full at the beginning."""
        self._rate, self._burst = rate, burst
        self._tokens, self._at = burst, 0.0

    def refuse(self, now: float) -> float | None:
        """See the base."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return None

    def earliest(self, count: int, first: float) -> float:
        """See the base."""
        return first + max(0.0, (count - self._burst) / self._rate)


class FixedWindow(Quota):
    """``calls`` in each window of ``seconds``; a window begins ``offset`` seconds after the epoch of the clock."""

    def __init__(self, calls: int, seconds: float, offset: float = 0.0) -> None:
        """Nothing used."""
        self._calls, self._seconds, self._offset = calls, seconds, offset
        self._window, self._used = 0, 0

    def refuse(self, now: float) -> float | None:
        """See the base."""
        window, within = divmod(now - self._offset, self._seconds)
        if int(window) != self._window:
            self._window, self._used = int(window), 0
        if self._used >= self._calls:
            return self._seconds - within
        self._used += 1
        return None

    def earliest(self, count: int, first: float) -> float:
        """See the base."""
        windows = (count - 1) // self._calls
        begin = first - (first - self._offset) % self._seconds
        return max(first, begin + windows * self._seconds)


def read_quota(spec: str) -> Quota:
    """Read ``bucket:RATE:BURST`` or ``window:CALLS:SECONDS:OFFSET`` (rate a second)."""
    kind, *numbers = spec.split(":")
    values = [float(number) for number in numbers]
    if kind == "bucket":
        return TokenBucket(values[0], values[1])
    if kind == "window":
        return FixedWindow(int(values[0]), values[1], *values[2:])
    raise ValueError(spec)


class Quotas:
    """A quota for each key."""

    def __init__(
        self, make: Callable[[], Quota], *, hint: bool, only: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``hint``: say how long to wait. ``only``: the one key that has a quota; empty: each has one of its own."""
        self._make, self._hint, self._only, self._clock = make, hint, only, clock
        self._by_key: dict[str, Quota] = {}

    def refusal(self, key: str) -> dict[str, Any] | None:
        """Take a call of a key: None, or the body of the 429."""
        if self._only and key != self._only:
            return None
        wait = self._by_key.setdefault(key, self._make()).refuse(self._clock())
        if wait is None:
            return None
        if not self._hint:
            return faults.envelope(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).")
        body = faults.quota(faults.PER_MINUTE, retry_delay=f"{wait:.9f}s")
        for detail in body["error"]["details"]:
            for violation in detail.get("violations", []):
                del violation["quotaValue"]
        return body
