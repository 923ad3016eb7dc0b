"""Scenario 23: the disk of pictures, of a spool, of PostgreSQL, of the data folder is full for a while; then there is room."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from processes import product, upstream

from nanobatch_client import Client
from nanobatch_client.errors import NanobatchError
from soak.ground import KEY, MODEL, Ground, NotStartedError, Setup
from soak.report import Report
from soak.scenarios.workers import create
from soak.stage import Stage, stage

_SMALL, _ROOMY = "8m", "256m"
_TABLES, _LEFT = "64m", 200_000
"""A disk for PostgreSQL's tables, and how many bytes of it are left once there is work."""
_PICTURE_BYTES = 300_000
_BACK_SECONDS = 10.0


@contextmanager
def disk(place: Path, size: str = _SMALL) -> Iterator[Callable[[], None]]:
    """Put a disk of its own (tmpfs; needs root) at a folder while the context is open; yields what makes it large."""
    place.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", place], capture_output=True, check=False
    )
    if mounted.returncode:
        raise NotStartedError(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield lambda: subprocess.run(["mount", "-o", f"remount,size={_ROOMY}", place], check=True)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


async def full_disks(ground: Ground, *, results: int = 120) -> Report:
    """Each disk in turn is too small for the run; when there is room, everything goes on without a restart."""
    await full_pictures(ground, results)
    await full_spool(ground, results)
    await full_database(ground, results)
    await full_data_folder(ground, results)
    return ground.report


async def full_pictures(ground: Ground, results: int) -> None:
    place = ground.folder / f"small-pictures-{time.monotonic_ns()}"
    with disk(place) as make_room:
        setup = Setup(
            picture_bytes=_PICTURE_BYTES,
            generators=2,
            watchers=1,
            environment={"NANOBATCH_BLOB_URL": place.as_uri()},
        )
        async with stage(ground, setup) as on:
            await create(on, results)
            await on.when(lambda: not shutil.disk_usage(place).free // _PICTURE_BYTES, within=240)
            await stands_still(on)
            await ended_with_room(ground.report, on, "pictures", make_room, results)
            shutil.copytree(place, on.folder / "data/pictures", dirs_exist_ok=True)
            on.verdict(ground.report, results=results, extra_calls_allowed=False)


async def full_spool(ground: Ground, results: int) -> None:
    setup = Setup(picture_bytes=_PICTURE_BYTES, generators=1, slots=8, watchers=1)
    async with stage(ground, setup) as on:
        one = on.generators[0]
        assert one.process is not None
        one.process.terminate()
        one.process.wait()
        # Not one whole picture fits.
        with disk(on.folder / "small-spool", "256k") as make_room:
            one.start(NANOBATCH_DATA_DIR=str(on.folder / "small-spool"))
            await on.create(results // 2)  # nothing of it can be finished yet
            await on.when(lambda: "spool.full" in on.log_of(f"g{one.number}"), within=120)
            await stands_still(on)
            await ended_with_room(ground.report, on, "a spool", make_room, results // 2)
            on.verdict(ground.report, results=results // 2, extra_calls_allowed=False)
            one.process.terminate()
            one.process.wait()


async def full_database(ground: Ground, results: int) -> None:
    """PostgreSQL's tables are on a small disk. Its log is not: without room for that the server itself ends."""
    report = ground.report
    with TemporaryDirectory(prefix="nanobatch-tables-") as folder:
        place = Path(folder, "small")
        os.chmod(folder, 0o711)  # noqa: PTH101, S103  # nothing else runs yet; the server has a user of its own
        with disk(place, _TABLES) as make_room, ground.postgres.databases_at(place):
            async with stage(ground, Setup(generators=2, watchers=1)) as on:
                await create(on, results)
                (place / "ballast").write_bytes(bytes(shutil.disk_usage(place).free - _LEFT))
                async with Client(f"127.0.0.1:{on.gateway_ports[0]}") as client:
                    refused = await told_of_no_room(client)
                report.hold(f"PostgreSQL: a creation with no room is told {refused}", kept=refused == "DISK_FULL")
                await stands_still(on)
                await ended_with_room(report, on, "PostgreSQL", make_room, results)
                on.verdict(report, results=results, extra_calls_allowed=False)


async def told_of_no_room(client: Client) -> str:
    """Ask for more than there is room for; returns the reason of the refusal."""
    long = [secrets.token_hex(4_900) for _ in range(100)]
    async with asyncio.timeout(60):
        try:
            await client.create_execution(long, model=MODEL, api_key=KEY)
        except NanobatchError as error:
            return str(error.reason)
    return "nothing: it was taken"


async def stands_still(on: Stage, seconds: float = 2.0) -> None:
    """Wait until nothing becomes final any more."""
    before, since = on.final(), time.monotonic()
    while time.monotonic() - since < seconds:
        await asyncio.sleep(0.2)
        if on.final() != before:
            before, since = on.final(), time.monotonic()


async def ended_with_room(report: Report, on: Stage, what: str, make_room: Callable[[], None], results: int) -> None:
    before = on.final()
    calls = len(on.provider.calls())
    report.hold(f"{what}: full with {before} of {results} done, after {calls} calls", kept=before < results)
    freed = time.monotonic()
    make_room()
    await on.when(lambda: on.final() > before, within=120)
    took = time.monotonic() - freed
    report.timely(f"{what}: goes on {took:.1f} s after there is room, without a restart", kept=took <= _BACK_SECONDS)
    await on.ended(within=180 + results)


async def full_data_folder(ground: Ground, results: int) -> None:
    """SQLite and pictures on one small disk, as with ``nanobatch up``."""
    report = ground.report
    place = ground.folder / f"small-data-{time.monotonic_ns()}"
    prompts = [f"[0-{number}] a boat" for number in range(min(100, results))]
    folder = ground.folder
    with disk(place) as make_room, upstream(folder, picture_bytes=_PICTURE_BYTES, latency="0.2", pixels=64) as provider:
        with product(folder, upstream_url=provider.url, data=place) as up:
            async with Client(up.target) as client:
                execution = await patient_creation(client, prompts)
                async with asyncio.timeout(240):
                    while shutil.disk_usage(place).free > 2 * _PICTURE_BYTES:  # noqa: ASYNC110  # another process fills it
                        await asyncio.sleep(0.2)
                refused = await told_that_it_is_full(client)
                report.hold(f"the data folder: a creation with no room is told {refused}", kept=refused == "DISK_FULL")
                make_room()
                async with asyncio.timeout(240):
                    async for _ in client.watch(execution):
                        pass
                stats = (await client.get_execution(execution)).stats
        calls = len(provider.calls())
        report.hold(
            f"the data folder: {stats.completed} of {len(prompts)} done by {calls} calls",
            kept=stats.completed == len(prompts) == calls,
        )
        with sqlite3.connect(place / "nanobatch.db") as looking:
            (sound,) = looking.execute("pragma integrity_check").fetchone()
        looking.close()
        report.hold(f"the data folder: integrity_check says {sound}", kept=sound == "ok")


async def patient_creation(client: Client, prompts: list[str]) -> str:
    async with asyncio.timeout(120):
        while True:
            try:
                return (await client.create_execution(prompts, model=MODEL, api_key=KEY)).id
            except NanobatchError:
                await asyncio.sleep(0.2)


async def told_that_it_is_full(client: Client) -> str:
    """Ask for things until there is no room for them; returns the reason that is given then."""
    long = ["a boat " * 1000 + str(number) for number in range(100)]
    with suppress(TimeoutError):
        async with asyncio.timeout(120):
            while True:
                try:
                    made = await client.create_execution(long, model="sandbox")
                    await client.cancel_execution(made.id)
                except NanobatchError as error:
                    if error.reason not in {"DATABASE_UNAVAILABLE", "STORAGE_UNAVAILABLE"}:
                        return str(error.reason)
                    await asyncio.sleep(0.5)
    return "nothing within two minutes"
