"""Scenario 26: what the queue's statements read, whatever the planner thinks of them, and while an old snapshot is open."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from postgres_server import OWNER, PostgresServer
from processes import ROOT
from queue_road import PLANNERS, SLOTS, with_options
from queue_seed import seed

from nanobatch_storage import migrate
from soak.ground import Ground, packages
from soak.report import Report

_WATCHED = {"results", "attempts"}
_SETTINGS = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_format": "json",
}
_EXPLAINED = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
_ROT = 3.0
"""R16: times what a lease cost at the start, at most."""
_LOOKS = 20


async def plans_and_bloat(ground: Ground, *, sizes: tuple[int, ...] = (100, 100_000), leases: int = 10_000) -> Report:
    """Every statement of a result's road, with fresh and stale statistics and each join forbidden; then an old snapshot."""
    report = ground.report
    # A superuser's, and databases are walked by their owner, because policies do not hold for superusers.
    ground.postgres.run(f"grant set on parameter {', '.join(_SETTINGS)} to {OWNER}")
    for size in sizes:
        for fresh in (True, False):
            name = await _queue(ground.postgres, size, analyze=fresh)
            try:
                await _planned(ground, report, name, f"{size:,} waiting, {'fresh' if fresh else 'no'} statistics", size)
            finally:
                ground.postgres.drop(name)
    await _rotten(ground, report, leases)
    return report


async def _planned(ground: Ground, report: Report, name: str, what: str, size: int) -> None:
    seen, whole, leased = 0, [], []
    for planner, options in PLANNERS.items():
        begin = len(ground.postgres.log())
        walked = await _walk(ground, name, 2, f"{options} {_EXPLAINED}".strip())
        leased += [(count, planner) for count in walked["leased"]]
        for plan in _plans(ground.postgres.log()[begin:]):
            seen += 1
            whole += [f"{planner}: {plan['Query Text'][:60]}" for node in _nodes(plan["Plan"]) if _reads_all(node)]
    wrong = [f"leased {count} for {SLOTS} slots {planner}" for count, planner in leased if count != SLOTS]
    report.hold(f"{what}: {len(leased)} leases of {SLOTS} slots, {wrong or 'each as many'}", kept=not wrong)
    # A hundred rows fit into two pages: nothing is quicker than to read them all.
    is_small = size < 10_000
    told = "whatever they read, the table is small" if is_small else f"{len(whole)} read a whole table {whole[:3]}"
    report.hold(f"{what}: {seen} plans, {told}", kept=seen > 0 and (is_small or not whole))


async def _rotten(ground: Ground, report: Report, leases: int) -> None:
    """Lease on while somebody keeps a snapshot of the beginning open: dead rows cannot be removed."""
    postgres = ground.postgres
    name = await _queue(postgres, leases + 1000, analyze=True)
    try:
        with postgres.connect(name) as holder:
            holder.execute(b"begin isolation level repeatable read")
            holder.execute(b"select count(*) from users")
            pages = await _pages(ground, name)
            walked = await _walk(ground, name, leases // SLOTS, "-c synchronous_commit=off")  # no disk is on trial
            rotten = await _pages(ground, name)
            holder.execute(b"rollback")
        with postgres.connect(name) as connection:
            connection.execute(b"vacuum")
        after = await _pages(ground, name)
    finally:
        postgres.drop(name)
    times = walked["milliseconds"]
    part = max(1, len(times) // 10)
    first, last = _p99(times[:part]), _p99(times[-part:])
    report.timely(
        f"a lease reads {pages:.0f} pages at first, {rotten:.0f} after {sum(walked['leased'])} leases under an old snapshot,"
        f" {after:.0f} when it is gone and the tables are vacuumed",
        kept=rotten <= _ROT * pages,
    )
    report.timely(f"p99 of a lease: {first:.1f} ms at first, {last:.1f} ms at last", kept=last <= _ROT * first)


async def _queue(postgres: PostgresServer, size: int, *, analyze: bool) -> str:
    """Make a database in which so many results wait."""
    name = postgres.create()
    await migrate.upgrade(postgres.url(name))
    with postgres.connect(name) as connection:
        for table in sorted({*_WATCHED, "executions"}):
            connection.execute(f"alter table {table} set (autovacuum_enabled = off)".encode())
    executions = min(100, size)
    await asyncio.to_thread(seed, postgres.url(name), pending=size, executions=executions, past=size, analyze=analyze)
    return name


async def _walk(
    ground: Ground, name: str, rounds: int, options: str = "", *, what: str = "road"
) -> dict[str, list[float]]:
    """Walk the road in a process of its own, with the packages that are to be tested."""
    path = ":".join([str(ROOT / "tests"), *packages(ground.tree).values()])
    process = await asyncio.create_subprocess_exec(
        sys.executable, ROOT / "tests/queue_road.py", what, with_options(ground.postgres.url(name), options), str(rounds),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    told, trouble = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the road was not walked to its end: {trouble.decode()[-1500:]}")
    return dict(json.loads(told))


async def _pages(ground: Ground, name: str) -> float:
    """Return how many pages of the buffer cache one lease touches, on average."""
    begin = len(ground.postgres.log())
    await _walk(ground, name, _LOOKS, _EXPLAINED, what="lease")
    read = sum(
        plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
        for plan in _plans(ground.postgres.log()[begin:])
    )
    return read / _LOOKS


def _plans(log: str) -> Iterator[dict[str, Any]]:
    for found in re.finditer(r"plan:\n((?:\t.*\n)+)", log):
        yield json.loads(found[1].replace("\n\t", "\n"))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def _reads_all(node: dict[str, Any]) -> bool:
    return node["Node Type"] == "Seq Scan" and node["Relation Name"] in _WATCHED


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]
