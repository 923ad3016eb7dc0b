"""Scenario 25: everything in one process on SQLite, killed again and again, while others open its file."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from processes import NANOBATCH, ROOT, Product, Upstream, bare_environment, free_port, product, upstream

from nanobatch_client import Client
from nanobatch_client.errors import NanobatchError
from soak.ground import KEY, MODEL, Ground, packages
from soak.report import Report
from soak.visitors import sound
from soak.watchers import Watchers

_SLOTS = 4
"""Few beside the results between two kills (20): each call has one chance in five to be killed. With 8 of 10 it had four, and
one result of 500 met ten kills, after which it ends as it should (docs/operations.md, "Prompts that kill")."""


async def one_file(ground: Ground, *, kills: int = 50, results: int = 1000) -> Report:
    """SIGKILL of ``nanobatch up`` while a client, exports, backups and a reader are at work."""
    report = ground.report
    folder = ground.folder / f"embedded-{time.monotonic_ns()}"
    folder.mkdir()
    with upstream(folder, picture_bytes=12_000, latency="uniform:0.1:0.5", seed=ground.seed, pixels=64) as fake:
        house = House(ground, folder, fake)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(house.close)
            await house.start()
            watchers = Watchers([house.target], folder / "recordings", random.Random(ground.seed))
            stack.push_async_callback(watchers.close)
            ids = [await house.create(n, min(100, results - 100 * n)) for n in range(-(-results // 100))]
            for one in ids:
                watchers.follow(one, 2)
            backups = await stack.enter_async_context(_visitor("backup", house.database))
            reader = await stack.enter_async_context(_visitor("read", house.database))
            exports = asyncio.create_task(house.export_on(ids[0]))
            for n in range(kills):
                at = (n + house.random.uniform(0.2, 0.8)) * results / (kills + 1)
                await house.when(lambda at=at: house.final() >= at and sum(fake.out().values()) > 0)
                await house.kill()
                await house.start()
            await house.when(lambda: house.final() >= results)
            await watchers.ended(60)
            house.over.set()
            exported = await exports
            seen = {"backups": await _left(backups), "reader": await _left(reader)}
            code = await house.stop()
        report.checked(house.described(results))
    report.hold(f"SIGTERM at last: exit code {code}", kept=code == 0)
    for name, one in seen.items():
        report.hold(f"{name}: {one['looks']} looks, {one['wrong'][:3]}", kept=not one["wrong"] and one["looks"] > 0)
    with zipfile.ZipFile(folder / "export.zip") as archive:
        pictures = sum(name.endswith(".png") for name in archive.namelist())
    wanted = min(100, results)
    report.hold(f"{exported} exports, {pictures} pictures of {wanted} in the last", kept=pictures == wanted)
    with sqlite3.connect(house.database) as connection:
        wrong = sound(connection)
    report.hold(f"the file itself: {wrong or 'ok'}", kept=not wrong)
    locked = sum(path.read_text(errors="replace").count("database is locked") for path in folder.glob("*.log"))
    report.hold(f"'database is locked' in the log: {locked} times", kept=locked == 0)
    report.none_of(kills, "kills")
    return report


class House:
    """``nanobatch up`` at one address and in one folder, over all its lives."""

    def __init__(self, ground: Ground, folder: Path, fake: Upstream) -> None:
        self.target = f"127.0.0.1:{free_port()}"
        self.data = folder / "data"
        self.database = self.data / "nanobatch.db"
        self.random = random.Random(ground.seed)
        self.over = asyncio.Event()
        self._ground, self._folder, self._fake = ground, folder, fake
        self._life = 0
        self._stack = AsyncExitStack()
        self._running: Product | None = None
        self._events: list[dict[str, Any]] = []

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self._life += 1
        environment = {
            "NANOBATCH_GATEWAY_GRPC": self.target,
            "NANOBATCH_LEASE_SECONDS": "5",
            "NANOBATCH_GENERATOR_CONCURRENCY": str(_SLOTS),
            "NANOBATCH_CREDENTIAL_WINDOW": str(_SLOTS),
            **packages(self._ground.tree),
        }
        url = f"{self._fake.url}/u{self._life}"
        self._running = self._stack.enter_context(
            product(self._folder, upstream_url=url, environment=environment, data=self.data)
        )
        async with Client(self.target) as client:
            deadline = time.monotonic() + 60
            while True:
                try:
                    await client.list_models()
                except NanobatchError:
                    if time.monotonic() > deadline or self._running.popen.poll() is not None:
                        raise
                    await asyncio.sleep(0.1)
                else:
                    return

    async def kill(self) -> None:
        assert self._running is not None
        who = f"u{self._life}"
        self._events.append({"kind": "kill", "who": who, "at": time.monotonic(), "wall": time.time()})
        self._running.popen.kill()
        await asyncio.to_thread(self._running.popen.wait)

    async def stop(self) -> int:
        """SIGTERM it; returns its exit code."""
        assert self._running is not None
        self._running.popen.terminate()
        return await asyncio.to_thread(self._running.popen.wait, 40)

    async def close(self) -> None:
        await self._stack.aclose()

    async def create(self, number: int, count: int) -> str:
        async with Client(self.target) as client:
            prompts = [f"[{number}-{n}] a boat" for n in range(count)]
            return (await client.create_execution(prompts, model=MODEL, api_key=KEY)).id

    async def export_on(self, execution: str) -> int:
        """Export one execution over and over with the command, to the last time when all is over; returns how often."""
        done, is_last = 0, False
        words = ["export", execution, "-o", self._folder / "export.zip", "--overwrite", "-q"]
        environment = bare_environment(self._folder) | {"NANOBATCH_GATEWAY_TARGET": self.target}
        while not is_last:
            is_last = self.over.is_set()
            process = await asyncio.create_subprocess_exec(
                NANOBATCH, *words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            done += await process.wait() == 0  # one that a kill met ends with an error, and is made again
            await asyncio.sleep(0.5)
        return done

    async def when(self, condition: Any, within: float = 120.0) -> None:
        deadline = time.monotonic() + min(within, self._ground.patience)
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {within:.0f} s; {self.final()} results are final")
            await asyncio.sleep(0.05)

    def final(self) -> int:
        """Count the results that are final."""
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            query = "select count(*) from results where state in ('COMPLETED', 'FAILED', 'CANCELLED')"
            return int(connection.execute(query).fetchone()[0])
        finally:
            connection.close()

    def described(self, results: int) -> Path:
        """Write down for the checker what it is to know."""
        facts = {
            "dsn": f"file:{self.database}?mode=ro",
            "provider_ledger": str(self._fake.ledger),
            "pictures": str(self.data / "pictures"),
            "recordings": str(self._folder / "recordings"),
            "logs": str(self._folder),
            "canary": KEY,
            "clock_offset": time.time() - time.monotonic(),
            "lease_seconds": 5,
            "events": self._events,
            "results": results,
            "recovery_promised": False,  # a start takes longer than a lease
        }
        description = self._folder / "run.json"
        description.write_text(json.dumps(facts, indent=1))
        return description


@asynccontextmanager
async def _visitor(kind: str, database: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run one of the programs of :mod:`soak.visitors`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "soak.visitors", kind, database, cwd=ROOT / "tests", stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _left(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Have a visitor leave; returns what it has seen."""
    process.terminate()
    told, _ = await process.communicate()
    return dict(json.loads(told))
