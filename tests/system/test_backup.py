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

from nanobatch_client.models import ExecutionState, ResultState
from nanobatch_runtime.testing import eventually

RUNS, PROMPTS = 3, 40
SLOW = {"NANOBATCH_SANDBOX_DELAY": "0.4", "NANOBATCH_GENERATOR_CONCURRENCY": "4"}


def recipes(title: str) -> list[str]:
    """Return the command blocks of a section."""
    page = (ROOT / "docs/operations.md").read_text()
    section = re.search(rf"^##+ {title}$(.*?)^##", page, re.MULTILINE | re.DOTALL)[1]
    return [block.replace("\n    ", "\n") for block in re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)]


async def carry_out(recipe: str, folder: Path, **environment: str) -> None:
    path = f"{_binaries()}:{ROOT}/.venv/s3/bin:{os.environ['PATH']}"
    words = ["bash", "-euc", recipe.replace(".venv/bin/", f"{ROOT}/.venv/bin/")]
    ran = await asyncio.to_thread(
        subprocess.run,
        words,
        cwd=folder,
        env={"PATH": path, "PYTHONPATH": f"{ROOT}/.venv/s3", **environment},
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
    backup, restore, *_ = recipes("Backup")
    data = tmp_path / "data"
    with product(tmp_path, data=data, environment=SLOW) as up:
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


class Places:
    """What is saved and where it is restored, as the recipes name it; services are started on the pair of them."""

    def __init__(self, folder: Path, databases: list[str], **given: str) -> None:
        """``databases`` are the URLs of the one that is there and of the empty one."""
        plain = [url.replace("+psycopg", "") for url in databases]
        self.url, self.restored_url = databases
        self.folder = folder
        self.environment = {"DATABASE": plain[0], "RESTORED": plain[1], "HOME": str(folder), **given}
        folder.mkdir()

    async def carry_out(self, recipe: str) -> None:
        await carry_out(recipe, self.folder, **self.environment)

    def rows(self, name: str = "DATABASE") -> list[tuple[str, str]]:
        with psycopg.connect(self.environment[name]) as looking:
            return looking.execute(COMPLETED).fetchall()

    async def under_load(self, at_least: int) -> None:
        await eventually(lambda: len(self.rows()) >= at_least, within=90)


@pytest.mark.timeout(300)
async def test_postgresql_and_pictures_saved_under_load_go_on_elsewhere_from_a_folder_and_from_a_bucket(
    tmp_path, postgres_server, s3_server, connect
):
    *_, backup, restore, backup_bucket, restore_bucket = recipes("Backup")
    (into_a_bucket,) = recipes("Pictures in an object store")
    names = [postgres_server.create() for _ in range(3)]
    urls = [postgres_server.url(name) for name in names]
    bucket, copy, restored = (s3_server.bucket() for _ in range(3))
    key = {"ENCRYPTION_KEY": os.urandom(32).hex()}
    store = s3_server.environment(bucket)
    first = Places(
        tmp_path / "first",
        urls[:2],
        PICTURES=str(tmp_path / "first/data/pictures"),
        RESTORED_PICTURES=str(tmp_path / "second/data/pictures"),
    )
    (tmp_path / "second/data").mkdir(parents=True)
    try:
        with cluster(first.folder, NANOBATCH_DATABASE_URL=first.url, **key, **SLOW) as services:
            services.storage(), services.gateway(), services.generator("one")
            client = await connect(services.target, within=90)
            ids = await under_load(client, lambda: len(first.rows()))
            await first.carry_out(backup)
            await client.__aexit__(None, None, None)
        await first.carry_out(restore)
        saved = first.rows("RESTORED")
        assert PROMPTS // 2 <= len(saved) < RUNS * PROMPTS  # it was under load
        all_are_whole(saved, tmp_path / "second/data/pictures")

        # What is restored goes on, its pictures in a bucket from now on.
        await carry_out(into_a_bucket, tmp_path / "second", **store, HOME=str(tmp_path))
        shutil.rmtree(tmp_path / "second")
        places = {"PICTURES": store["NANOBATCH_BLOB_URL"], "COPY": f"s3://{copy}/of/pictures"}
        elsewhere = s3_server.environment(restored)
        places["RESTORED_PICTURES"] = elsewhere["NANOBATCH_BLOB_URL"]
        second = Places(tmp_path / "second", urls[1:], **places, **store)
        with cluster(second.folder, NANOBATCH_DATABASE_URL=second.url, **key, **store, **SLOW) as services:
            services.storage(), services.generator("one")
            await second.under_load(len(saved) + 5)
            await second.carry_out(backup_bucket)
        await second.carry_out(restore_bucket)
        more = second.rows("RESTORED")
        assert len(saved) + 5 <= len(more) < RUNS * PROMPTS
        s3_server.mirror(restored, "pictures/", tmp_path / "mirror")
        all_are_whole(more, tmp_path / "mirror")

        # And the pair that was restored from the bucket gives every picture back.
        for lost in (bucket, copy):
            s3_server.empty(lost)
        third = tmp_path / "third"
        third.mkdir()
        with cluster(third, NANOBATCH_DATABASE_URL=second.restored_url, **key, **elsewhere) as services:
            services.storage(), services.gateway(), services.generator("one", NANOBATCH_SANDBOX_DELAY="0")
            client = await connect(services.target, within=90)
            for execution_id in ids:
                async for _ in client.watch(execution_id):
                    pass
                results = [each async for each in client.list_results(execution_id)]
                assert {each.state for each in results} == {ResultState.COMPLETED}
                for result in (results[0], results[-1]):
                    image = await client.download_image(result.image_id, third / f"{result.id}.png")
                    assert hashlib.sha256((third / f"{result.id}.png").read_bytes()).hexdigest() == image.sha256
            await client.__aexit__(None, None, None)
    finally:
        for name in names:
            postgres_server.drop(name)
