"""The recipes of docs/operations.md, taken from the page and run under load: what is restored is whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import psycopg
import pytest
from postgres_server import _binaries
from processes import ROOT, cluster, product

from nanobatch_client.models import ExecutionState
from nanobatch_runtime.testing import eventually

RUNS, PROMPTS = 3, 60


def recipes() -> list[str]:
    """Return the command blocks of the section."""
    page = (ROOT / "docs/operations.md").read_text()
    section = re.search(r"^## Backup$(.*?)^## ", page, re.MULTILINE | re.DOTALL)[1]
    return [block.replace("\n    ", "\n") for block in re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)]


async def carry_out(recipe: str, folder: Path, **environment: str) -> None:
    path = f"{_binaries()}:{os.environ['PATH']}"
    words = ["bash", "-euc", recipe.replace(".venv/bin/", f"{ROOT}/.venv/bin/")]
    ran = await asyncio.to_thread(
        subprocess.run,
        words,
        cwd=folder,
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


async def under_load(client, done) -> list[str]:
    """Start more than is done when it returns: pictures come all the while."""
    prompts = [f"boat {number}" for number in range(PROMPTS)]
    ids = [(await client.create_execution(prompts, model="sandbox")).id for _ in range(RUNS)]
    await eventually(lambda: done() >= PROMPTS // 2, within=90)
    return ids


def all_are_whole(rows: list[tuple[str, str]], folder: Path) -> None:
    for blob_path, sha256 in rows:
        assert hashlib.sha256((folder / blob_path).read_bytes()).hexdigest() == sha256, blob_path


COMPLETED = (
    "select images.blob_path, images.sha256 from results "
    "join images on images.id in (results.image_id, results.master_image_id) where results.state = 'COMPLETED'"
)
COUNT = "select count(*) from results where state = 'COMPLETED'"


@pytest.mark.timeout(300)
async def test_a_data_folder_that_was_copied_under_load_goes_on_where_it_was(tmp_path, connect):
    backup, restore, *_ = recipes()
    data = tmp_path / "data"
    slow = {"NANOBATCH_SANDBOX_DELAY": "0.3", "NANOBATCH_GENERATOR_CONCURRENCY": "4"}
    with product(tmp_path, data=data, environment=slow) as up:
        client = await connect(up.target, within=90)
        with sqlite3.connect(f"file:{data / 'nanobatch.db'}?mode=ro", uri=True) as looking:
            ids = await under_load(client, lambda: looking.execute(COUNT).fetchone()[0])
            await carry_out(backup, tmp_path)
            assert looking.execute(COUNT).fetchone()[0] < RUNS * PROMPTS  # it was under load
        looking.close()
        await client.__aexit__(None, None, None)
    shutil.rmtree(data)
    with_up = [line for line in restore.splitlines() if " up " not in line]  # which this test does itself
    assert len(with_up) == len(restore.splitlines()) - 1
    await carry_out("\n".join(with_up), tmp_path)

    restored = tmp_path / "restored"
    looking = sqlite3.connect(restored / "nanobatch.db")
    assert looking.execute("pragma integrity_check").fetchone() == ("ok",)
    rows = looking.execute(COMPLETED).fetchall()
    looking.close()
    assert len(rows) >= PROMPTS // 2
    all_are_whole(rows, restored / "pictures")
    with product(tmp_path, data=restored, environment={"NANOBATCH_SANDBOX_DELAY": "0"}) as up:
        client = await connect(up.target, within=90)
        for execution_id in ids:
            async for _ in client.watch(execution_id):
                pass
            execution = await client.get_execution(execution_id)
            assert (execution.state, execution.stats.completed) == (ExecutionState.COMPLETED, PROMPTS)
        await client.__aexit__(None, None, None)


@pytest.mark.timeout(300)
async def test_a_postgresql_that_was_dumped_under_load_is_whole_elsewhere(tmp_path, postgres_server, connect):
    *_, backup, restore = recipes()
    first, second = postgres_server.create(), postgres_server.create()
    plain = {
        name: postgres_server.url(database).replace("+psycopg", "")
        for name, database in (("DATABASE", first), ("RESTORED", second))
    }
    pictures = {"PICTURES": str(tmp_path / "data/pictures"), "RESTORED_PICTURES": str(tmp_path / "restored")}
    slow = {"NANOBATCH_SANDBOX_DELAY": "0.3", "NANOBATCH_GENERATOR_CONCURRENCY": "4"}
    try:
        with cluster(tmp_path, NANOBATCH_DATABASE_URL=postgres_server.url(first), **slow) as services:
            services.storage(), services.gateway(), services.generator("one")
            client = await connect(services.target, within=90)
            with psycopg.connect(plain["DATABASE"], autocommit=True) as looking:
                await under_load(client, lambda: looking.execute(COUNT).fetchone()[0])
                await carry_out(backup, tmp_path, **plain, **pictures)
                assert looking.execute(COUNT).fetchone()[0] < RUNS * PROMPTS  # it was under load
            await client.__aexit__(None, None, None)
        await carry_out(restore, tmp_path, **plain, **pictures)
        with psycopg.connect(plain["RESTORED"]) as looking:
            rows = looking.execute(COMPLETED).fetchall()
            (results,) = looking.execute("select count(*) from results").fetchone()
        assert results == RUNS * PROMPTS
        assert len(rows) >= PROMPTS // 2
        all_are_whole(rows, tmp_path / "restored")
    finally:
        for name in (first, second):
            postgres_server.drop(name)
