"""How long calls take, and what that says about one that is running."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict, deque
from datetime import timedelta

import structlog

from nanobatch_catalog import find_model
from nanobatch_generator.domain import Estimate, Latency
from nanobatch_generator.ports import Changes
from nanobatch_runtime.errors import NanobatchError

_log = structlog.get_logger("nanobatch.latency")

_OWN_ENOUGH = 5
_OWN_KEPT = 50
_REFRESH_SECONDS = 60.0
_UNKNOWN_MODEL = timedelta(seconds=10)
_PERCENT_AT_MEDIAN = 90
_MOST_PERCENT = 99


def estimate(result_id: str, elapsed: timedelta, latency: Latency) -> Estimate:
    """Guess percent and time to go: straight to 90 % at the median, then ever slower towards 99 %.

    Past the 95th percentile no time to go is given: nobody knows it.
    """
    ratio = elapsed / latency.median if latency.median else 1.0
    if ratio < 1:
        percent = _PERCENT_AT_MEDIAN * ratio
    else:
        percent = _PERCENT_AT_MEDIAN + (_MOST_PERCENT - _PERCENT_AT_MEDIAN) * (1 - math.exp(1 - ratio))
    goal = latency.median if ratio < 1 else latency.p95
    eta = goal - elapsed if goal > elapsed else None
    return Estimate(result_id, percent=min(_MOST_PERCENT, int(percent)), eta=eta)


class Latencies:
    """What is known per model: storage's history, overtaken by this generator's own calls once there are five."""

    def __init__(self, changes: Changes) -> None:
        """Know nothing yet."""
        self._changes = changes
        self._own: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_OWN_KEPT))
        self._stored: dict[str, Latency] = {}
        self._asked: dict[str, float] = {}

    def note(self, model: str, took: timedelta) -> None:
        """Remember a successful call."""
        self._own[model].append(took.total_seconds())

    async def refresh(self, model: str) -> None:
        """Ask storage at most once a minute; where it does not answer, what is known holds."""
        now = time.monotonic()
        if now - self._asked.get(model, -math.inf) < _REFRESH_SECONDS:
            return
        self._asked[model] = now
        try:
            self._stored[model] = await self._changes.latency(model)
        except NanobatchError as error:
            _log.debug("latency.unknown", model=model, reason=error.reason)

    def of(self, model: str) -> Latency:
        """Return the best that is known, at worst the catalogue's typical figure."""
        own = self._own.get(model, ())
        if len(own) >= _OWN_ENOUGH:
            ordered = sorted(own)
            p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
            return Latency(len(own), timedelta(seconds=statistics.median(ordered)), timedelta(seconds=p95))
        stored = self._stored.get(model)
        if stored is not None and stored.sample_count:
            return stored
        entry = find_model(model)
        typical = entry.typical_latency if entry is not None else _UNKNOWN_MODEL
        return Latency(0, typical, typical * 2)
