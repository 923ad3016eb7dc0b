"""The scenarios by number; what each does stands in its module."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from soak.report import Report
from soak.scenarios import clients, crowds, edges, embedded, outages, plans, poison, quotas, stops, storms, workers
from soak.stage import Ground

Run = Callable[..., Awaitable[Report]]


@dataclass(frozen=True)
class Scenario:
    """A scenario, with its sizes where time is short (``make test``) and where there is much."""

    title: str
    run: Run
    short: dict[str, Any] = field(default_factory=dict)
    long: dict[str, Any] = field(default_factory=dict)

    async def __call__(self, ground: Ground, size: str = "") -> Report:
        """Run it in its ordinary size, ``short`` or ``long``."""
        return await self.run(ground, **{"": {}, "short": self.short, "long": self.long}[size])


SCENARIOS: dict[str, Scenario] = {
    "1": Scenario(
        "kill -9 of a generator",
        workers.kills,
        {"kills": 8, "results": 120},
        {"kills": 1000, "results": 10_000},
    ),
    "2": Scenario(
        "a generator frozen past its leases",
        workers.freezes,
        {"freezes": 4, "results": 160},
        {"freezes": 100, "results": 4000},
    ),
    "3": Scenario("lost acknowledgements", workers.lost_answers, {"results": 100}, {"results": 2000}),
    "6": Scenario(
        "PostgreSQL restarts",
        outages.postgres_restarts,
        {"results": 100, "restarts": 1, "terminating": 3, "down": 0},
    ),
    "8": Scenario(
        "a death at every boundary",
        edges.boundaries,
        {"names": edges.SHORT, "hits": (1, 8)},
    ),
    "9": Scenario("rolling restarts", stops.rolling_restarts, {"results": 100, "rounds": 1}),
    "10": Scenario(
        "a gateway is killed",
        stops.gateway_kills,
        {"results": 60, "kills": 3, "watchers": 10},
    ),
    "12": Scenario(
        "Redis vanishes",
        outages.redis_gone,
        {"results": 60, "flushes": 3, "hang": 2, "down": 1},
    ),
    "13": Scenario("watchers without a gap", clients.no_gap, {"executions": 2, "watchers": 8}),
    "15": Scenario("storms of control", clients.storms, {"executions": 8, "rounds": 3}),
    "15b": Scenario(
        "storms with retries and deletes, from two sides",
        storms.storms,
        {"executions": 8, "results": 8, "seconds": 8},
        {"executions": 40, "seconds": 300},
    ),
    "16": Scenario("calls that hang", edges.hung_calls, {"results": 40}),
    "17": Scenario("a storm of 429s", quotas.storm, {"results": 60}, {"results": 1000}),
    "18": Scenario("calls accepted, then cut", edges.cut_after_acceptance, {"results": 40}),
    "20": Scenario(
        "poison",
        poison.poison,
        {"results": 62, "prompts": 2},
        {"results": 5000, "prompts": 50},
    ),
    "21": Scenario("a blocked loop", edges.blocked_loop, {"results": 100, "every": 25}),
    "25": Scenario(
        "one process on SQLite",
        embedded.one_file,
        {"kills": 4, "results": 60},
        {"kills": 500, "results": 5000},
    ),
    "26": Scenario(
        "plans, and an old snapshot",
        plans.plans_and_bloat,
        {"sizes": (10_000,), "leases": 700},
        {"sizes": (100, 100_000, 1_000_000), "leases": 60_000},
    ),
    "27": Scenario(
        "a flood, and many users at once",
        crowds.flood,
        {"backlog": 4, "singles": 5, "users": 12, "results": 10},
        {"singles": 100, "users": 100},
    ),
    "29": Scenario("the same creation many times", clients.submit_twice),
    "all": Scenario(
        "kills, freezes, lost answers, a restart, FLUSHALL",
        workers.everything,
        {"kills": 8, "freezes": 2, "results": 200},
        {"kills": 1000, "freezes": 100, "results": 10_000},
    ),
}
