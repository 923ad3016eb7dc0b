"""What a scenario stands on, and how much of what it wants."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from postgres_server import PostgresServer

from soak.report import Report

MODEL = "gemini-2.5-flash-image"
KEY = "canary-key-5Yk2Qw8Zr1"
"""Whatever the product writes down is searched for it."""


class NotStartedError(Exception):
    """The product did not come up: the run says nothing."""


class StuckError(Exception):
    """What was waited for did not come; the report has the checker's verdict on what there was by then."""


@dataclass(frozen=True)
class Setup:
    """How many of what, and what lies between them."""

    generators: int = 3
    slots: int = 8
    gateways: int = 2
    storages: int = 1
    lease_seconds: float = 3.0
    latency: str = "uniform:0.3:0.9"
    picture_bytes: int = 12_000
    proxies: frozenset[str] = frozenset()
    """Proxied hops: ``database``, ``redis``, ``provider``, ``storage`` (from generators), ``gateway`` (from clients)."""
    watchers: int = 2
    """Of each execution."""
    environment: dict[str, str] = field(default_factory=dict)
    one_name: bool = False
    """Gateways find generators by one name, each at an address of its own, as the pods behind a headless service. The
    scenario starts them, and says in ``names`` what the name resolves to."""
    upstream: tuple[str, ...] = ()
    """Further options of the fake provider's command line."""


@dataclass
class Ground:
    """What all scenarios of a run stand on."""

    postgres: PostgresServer
    folder: Path
    seed: int
    tree: Path | None = None
    """Another copy of the packages to run, broken on purpose; none: this one."""
    report: Report = field(default_factory=Report)
    """Of the scenario that runs; each has its own."""
    is_lean: bool = False
    """Two generators are to do, where a scenario would like more."""
    patience: float = math.inf
    """Seconds after which whatever is waited for counts as never coming: a broken copy may stop altogether."""


def packages(tree: Path | None) -> dict[str, str]:
    """Return the environment that has processes run the packages of a copy of the repository; none: nothing."""
    if tree is None:
        return {}
    members = [*sorted((tree / "services").iterdir()), tree / "clients/sdk", tree / "protos/gen"]
    return {"PYTHONPATH": ":".join(map(str, members))}
