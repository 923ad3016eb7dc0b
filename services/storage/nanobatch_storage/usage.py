"""What calls to providers came to, as storage thinks of it. No I/O, no protobuf, no SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

MAX_ROWS = 10_000
"""Rows of one answer; more would not fit into a message."""


class Grouping(StrEnum):
    """See ``nanobatch.gateway.v1.UsageGrouping``. The order is that of an answer's rows."""

    DAY = "DAY"
    MODEL = "MODEL"
    OUTCOME = "OUTCOME"


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which calls: begun in ``start <= time < end``, of one model (empty: all) and one user (None: everybody)."""

    start: datetime
    end: datetime
    model: str = ""
    user_id: str | None = None
    group_by: Collection[Grouping] = ()


@dataclass(frozen=True, slots=True)
class UsageFigures:
    """See ``nanobatch.gateway.v1.Usage``."""

    pictures: int = 0
    attempts: int = 0
    cost_micros: int = 0
    uncertain_micros: int = 0
    p50: timedelta | None = None
    p90: timedelta | None = None
    p99: timedelta | None = None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One group; what was not grouped by is empty."""

    day: str
    model: str
    outcome: str
    figures: UsageFigures


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Groups by day, model and outcome, and all of them together."""

    rows: Sequence[UsageRow]
    totals: UsageFigures
