"""Each service as a process, on PostgreSQL and Redis: how soon it serves, and what it takes while nothing happens."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
from postgres_server import private_postgres
from processes import Cluster, cluster, command, free_port
from redis_server import private_redis

from nanobatch_runtime.diagnosis import Verdict, examine_service

_IDLE_SECONDS = 5.0
START_GOAL, MEMORY_GOAL = 3.0, 120.0
Figures = tuple[float, float, float]
"""Seconds until it serves, seconds of CPU until then, MB resident after a while without work."""


async def bench_services(folder: Path, rounds: int) -> None:
    """Start of each service until it serves (seconds, and CPU until then), and its memory while idle.

    A storage that finds an empty database has loaded Alembic, and keeps it; the goals are for all other starts.
    """
    found: dict[str, list[Figures]] = {}
    with private_postgres() as postgres, private_redis() as redis:
        for number in range(rounds):
            place = folder / f"services-{number}"
            place.mkdir()
            places = {
                "NANOBATCH_DATABASE_URL": postgres.url(postgres.create()),
                "NANOBATCH_REDIS_URL": redis.url,
            }
            with cluster(place, **places) as services:
                for name, figures in (await _measured(services, place)).items():
                    found.setdefault(name, []).append(figures)
    for name, all_of_it in found.items():
        wall, cpu, memory = (statistics.median(column) for column in zip(*all_of_it, strict=True))
        print(f"  {name}: serves after {wall:.1f} s ({cpu:.1f} s of CPU), {memory:.0f} MB idle")
        large = name in {"web", "storage that migrates"}
        kept = wall <= START_GOAL and (memory <= MEMORY_GOAL or large)
        print(f"    goals: {START_GOAL:g} s{'' if large else f', {MEMORY_GOAL:g} MB'}: {'kept' if kept else 'MISSED'}")


async def _measured(services: Cluster, folder: Path) -> dict[str, Figures]:
    door = f"127.0.0.1:{free_port()}"
    environment = {"NANOBATCH_WEB": door, "NANOBATCH_GATEWAY_TARGET": services.target}
    started: dict[str, tuple[subprocess.Popen, float, float]] = {}

    async def start(name: str, process: subprocess.Popen, serves: Callable[[], Awaitable[bool]], begun: float) -> None:
        while not await serves():
            if process.poll() is not None:
                raise SystemExit(f"{name} has ended: {services.log(name)}")
            await asyncio.sleep(0.02)
        used = psutil.Process(process.pid).cpu_times()
        started[name] = (process, time.monotonic() - begun, used.user + used.system)

    # One after the other: what starts beside another takes its time.
    begun = time.monotonic()
    first = services.storage()
    await start("storage that migrates", first, lambda: _serves(services.storage_target), begun)
    await asyncio.sleep(_IDLE_SECONDS)
    migrated = _resident(first)
    first.terminate()
    await asyncio.to_thread(first.wait, 30)
    begun = time.monotonic()
    await start("storage", services.storage(), lambda: _serves(services.storage_target), begun)
    begun = time.monotonic()
    generator = services.generator("generator", at=services.generator_target)
    await start("generator", generator, lambda: _serves(services.generator_target), begun)
    begun = time.monotonic()
    await start("gateway", services.gateway(), lambda: _serves(services.target), begun)
    begun = time.monotonic()
    with command(folder, "serve", "web", environment=environment) as web:
        await start("web", web, lambda: asyncio.to_thread(_answers, f"http://{door}/healthz"), begun)
        await asyncio.sleep(_IDLE_SECONDS)
        return {
            name: (wall, cpu, migrated if process is first else _resident(process))
            for name, (process, wall, cpu) in started.items()
        }


def _resident(process: subprocess.Popen) -> float:
    return psutil.Process(process.pid).memory_info().rss / 1e6


async def _serves(target: str) -> bool:
    return (await examine_service("it", target, advice="wait")).verdict is Verdict.OK


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  # our own
            return bool(answer.status == 200)
    except OSError:
        return False
