"""The scenarios by number; what each does stands in its module."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from soak.ground import Ground, NotStartedError, StuckError
from soak.report import Report
from soak.scenarios import (
    audience,
    clients,
    clocks,
    crowds,
    dependencies,
    edges,
    embedded,
    fulldisks,
    limits,
    outages,
    plans,
    poison,
    quotas,
    scaling,
    stops,
    storms,
    upgrades,
    workers,
)

_PARTS = 5
"""A scenario has so many parts at most that wait for something."""

Run = Callable[..., Awaitable[Report]]


@dataclass(frozen=True)
class Scenario:
    """A scenario, with its sizes where time is short and where there is much."""

    title: str
    run: Run
    short: dict[str, Any] = field(default_factory=dict)
    long: dict[str, Any] = field(default_factory=dict)
    commit: dict[str, Any] = field(default_factory=dict)
    """What ``make test`` can wait for, on few processes."""

    async def __call__(self, ground: Ground, size: str = "") -> Report:
        """Run it in its ordinary size, or in one of those named above. Raises NotStartedError; all else is a finding."""
        sizes = {"": {}, "short": self.short, "long": self.long, "commit": {**self.short, **self.commit}}
        report = Report()
        try:
            async with asyncio.timeout(_PARTS * ground.patience if ground.patience < math.inf else None):
                await self.run(replace(ground, report=report, is_lean=size == "commit"), **sizes[size])
        except NotStartedError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a broken product does to its clients is for the report
            report.hold(f"it came to an end: {type(error).__name__}: {error}", kept=False)
            if not isinstance(error, StuckError | TimeoutError):
                report.say(traceback.format_exc())
        return report


SCENARIOS: dict[str, Scenario] = {
    "1": Scenario(
        "kill -9 of a generator",
        workers.kills,
        {"kills": 8, "results": 120},
        {"kills": 1000, "results": 10_000},
        commit={"kills": 3, "results": 50},
    ),
    "2": Scenario(
        "a generator frozen past its leases",
        workers.freezes,
        {"freezes": 4, "results": 160},
        {"freezes": 100, "results": 4000},
        commit={"freezes": 2, "results": 60},
    ),
    "3": Scenario(
        "lost acknowledgements",
        workers.lost_answers,
        {"results": 100},
        {"results": 2000},
        commit={"results": 60},
    ),
    "5": Scenario(
        "a database that is half there",
        dependencies.half_open_database,
        {"results": 80, "lease": 6.0, "long": 4.0},  # longer than a call may take
    ),
    "6": Scenario(
        "PostgreSQL restarts",
        outages.postgres_restarts,
        {"results": 100, "restarts": 1, "terminating": 3, "down": 0},
    ),
    "8": Scenario(
        "a death at every boundary",
        edges.boundaries,
        {"names": edges.SHORT, "hits": (1, 8)},
        commit={"names": ("spooled", "after_commit"), "hits": (8,)},
    ),
    "9": Scenario("rolling restarts", stops.rolling_restarts, {"results": 100, "rounds": 1}),
    "10": Scenario(
        "a gateway is killed",
        stops.gateway_kills,
        {"results": 60, "kills": 3, "watchers": 10},
        commit={"results": 40, "kills": 2, "watchers": 4},
    ),
    "11": Scenario(
        "a storage is killed",
        dependencies.storage_kills,
        {"results": 80, "kills": 4},
        {"results": 3000, "kills": 200},
    ),
    "12": Scenario(
        "Redis vanishes",
        outages.redis_gone,
        {"results": 60, "flushes": 3, "hang": 2, "down": 1},
        commit={"results": 30, "more": 10, "flushes": 2, "hang": 1, "down": 0.5},
    ),
    "13": Scenario(
        "watchers without a gap",
        clients.no_gap,
        {"executions": 2, "watchers": 8},
        commit={"results": 50, "watchers": 4},
    ),
    "14": Scenario(
        "a crowd of watchers, slow, stalled, coming and going",
        audience.audience,
        {"idle": 300, "visits": 1000, "slow": 20, "stalled": 10, "results": 60},
        {"visits": 20_000},
    ),
    "15": Scenario(
        "storms of control",
        clients.storms,
        {"executions": 8, "rounds": 3},
        commit={"executions": 6, "rounds": 2},
    ),
    "15b": Scenario(
        "storms with retries and deletes, from two sides",
        storms.storms,
        {"executions": 8, "results": 8, "seconds": 8},
        {"executions": 40, "seconds": 300},
    ),
    "16": Scenario("calls that hang", edges.hung_calls, {"results": 40}),
    "17": Scenario("a storm of 429s", quotas.storm, {"results": 150}, {"results": 1000}),
    "18": Scenario("calls accepted, then cut", edges.cut_after_acceptance, {"results": 40}),
    "20": Scenario(
        "poison",
        poison.poison,
        {"results": 62, "prompts": 2},
        {"results": 5000, "prompts": 50},
    ),
    "21": Scenario("a blocked loop", edges.blocked_loop, {"results": 100, "every": 25}),
    "22": Scenario("clocks that step", clocks.clocks, {"each": 12}, {"each": 200, "back": 120}),
    "23": Scenario("full disks", fulldisks.full_disks, {"results": 60}, {"results": 300}),
    "24": Scenario(
        "an object store in trouble",
        dependencies.store_in_trouble,
        {"results": 160, "kills": 2, "away": 5.0},
        {"results": 2000, "kills": 20},
    ),
    "25": Scenario(
        "one process on SQLite",
        embedded.one_file,
        {"kills": 4, "results": 80},
        {"kills": 500, "results": 10_000},
    ),
    "26": Scenario(
        "plans, and an old snapshot",
        plans.plans_and_bloat,
        {"sizes": (10_000,), "leases": 350},
        {"sizes": (100, 100_000, 1_000_000), "leases": 60_000},
    ),
    "27": Scenario(
        "a flood, and many users at once",
        crowds.flood,
        {"backlog": 4, "singles": 5, "users": 12, "results": 10},
        {"singles": 100, "users": 100},
    ),
    "28": Scenario("limits while Redis comes and goes", limits.limits, {}, {"off": 120.0, "back": 120.0}),
    "29": Scenario("the same creation many times", clients.submit_twice),
    "scale": Scenario("generators are scaled from one to four", scaling.scale_up, {"after": 15.0}, {"generators": 6}),
    "40": Scenario("an upgrade under load, and back", upgrades.upgrades, {"results": 100}),
    "all": Scenario(
        "kills, freezes, lost answers, a restart, FLUSHALL",
        workers.everything,
        {"kills": 8, "freezes": 2, "results": 200},
        {"kills": 1000, "freezes": 100, "results": 10_000},
    ),
}
