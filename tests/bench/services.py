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
import pytest
from deploy.namespace import Namespace, namespace
from postgres_server import private_postgres
from processes import Cluster, cluster, command, free_port
from redis_server import private_redis
from s3_server import private_s3

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
    _report(found)


async def bench_prod(folder: Path, rounds: int) -> None:
    """The same for the pods of the rendered overlay prod: an S3 store, tokens, metrics, and the schema made by its job."""
    found: dict[str, list[Figures]] = {}
    with private_postgres() as postgres, private_redis() as redis, private_s3() as objects:
        for number in range(rounds):
            place = folder / f"prod-{number}"
            place.mkdir()
            try:
                with namespace(place, postgres, redis, objects) as pods:
                    for name, figures in (await _measured_pods(pods)).items():
                        found.setdefault(name, []).append(figures)
            except pytest.skip.Exception as reason:  # what renders is not installed everywhere
                print(f"  not measured: {reason}")
                return
    _report(found)


async def _measured_pods(pods: Namespace) -> dict[str, Figures]:
    if await asyncio.to_thread(pods.start("migrate").wait, 60):
        raise _ended(pods.folder / "migrate.log")
    started = {}
    for name in ("storage", "generator", "gateway", "web"):
        pod = f"{name}-1"
        begun = time.monotonic()
        process = pods.start(pod)
        await _until(process, lambda name=name: _is_ready(pods, name), pods.folder / f"{pod}.log")
        started[name] = (process, time.monotonic() - begun, _cpu(process))
    await asyncio.sleep(_IDLE_SECONDS)
    return {name: (wall, cpu, _resident(process)) for name, (process, wall, cpu) in started.items()}


async def _is_ready(pods: Namespace, name: str) -> bool:
    if name != "web":
        return await pods.ready(f"{name}-1")
    # What its probe asks as well, but every 20 ms: a client of httpx, with its TLS, would take half a processor for that.
    return await asyncio.to_thread(_answers, f"http://{pods.addresses['web-1']}:7860/healthz")


def _report(found: dict[str, list[Figures]]) -> None:
    for name, all_of_it in found.items():
        wall, cpu, memory = (statistics.median(column) for column in zip(*all_of_it, strict=True))
        print(f"  {name}: serves after {wall:.1f} s ({cpu:.1f} s of CPU), {memory:.1f} MB idle")
        large = name in {"web", "storage that migrates"}
        kept = wall <= START_GOAL and (memory <= MEMORY_GOAL or large)
        print(f"    goals: {START_GOAL:g} s{'' if large else f', {MEMORY_GOAL:g} MB'}: {'kept' if kept else 'MISSED'}")


async def _measured(services: Cluster, folder: Path) -> dict[str, Figures]:
    door = f"127.0.0.1:{free_port()}"
    environment = {"NANOBATCH_WEB": door, "NANOBATCH_GATEWAY_TARGET": services.target}
    started: dict[str, tuple[subprocess.Popen, float, float]] = {}

    async def start(name: str, process: subprocess.Popen, serves: Callable[[], Awaitable[bool]], begun: float) -> None:
        await _until(process, serves, folder / f"{name.partition(' ')[0]}.log")
        started[name] = (process, time.monotonic() - begun, _cpu(process))

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


async def _until(process: subprocess.Popen, serves: Callable[[], Awaitable[bool]], log: Path) -> None:
    while not await serves():
        if process.poll() is not None:
            raise _ended(log)
        await asyncio.sleep(0.02)


def _ended(log: Path) -> SystemExit:
    return SystemExit(f"A service has ended: {log.read_text() if log.exists() else log.name}")


def _cpu(process: subprocess.Popen) -> float:
    used = psutil.Process(process.pid).cpu_times()
    return used.user + used.system


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
