"""Deadlines that travel: what a handler calls may take no longer than its caller will wait."""

from __future__ import annotations

import time
from contextvars import ContextVar
from datetime import timedelta

_deadline: ContextVar[float | None] = ContextVar("nanobatch_deadline", default=None)


def set_remaining(seconds: float | None) -> None:
    """Note how long the caller of the current handler will still wait; None: it did not say."""
    _deadline.set(None if seconds is None else time.monotonic() + seconds)


def timeout_within(limit: timedelta) -> float:
    """Return the seconds for an outgoing call: ``limit``, or less where the caller waits less (never under 1 ms)."""
    deadline = _deadline.get()
    seconds = limit.total_seconds()
    if deadline is None:
        return seconds
    return max(0.001, min(seconds, deadline - time.monotonic()))
