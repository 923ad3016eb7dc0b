"""One process, one command: what `make run` starts."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from processes import NANOBATCH, ROOT, Product, Upstream, bare_environment, product, upstream

from nanobatch_client.errors import NanobatchError
from nanobatch_client.models import ExecutionState, ResultState, UnknownPolicy
from nanobatch_runtime.testing import eventually

MODEL, KEY = "gemini-2.5-flash-image", "a-provider-key-for-tests"


def cli(folder: Path, target: str, *words: str, **environment: str) -> subprocess.CompletedProcess:
    env = bare_environment(folder) | {"NANOBATCH_GATEWAY_TARGET": target} | environment
    return subprocess.run(
        [NANOBATCH, *words], env=env, capture_output=True, text=True, cwd=folder, timeout=90, check=False
    )


@dataclass
class Shared:
    """A product that many tests use at once, and its provider."""

    product: Product
    upstream: Upstream

    def calls(self, words: str) -> int:
        """Return how many calls the provider got for prompts with ``words`` in them."""
        return sum(words in call["prompt"] for call in self.upstream.calls())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("shared")
    with (
        upstream(folder, picture_bytes=30_000) as gemini,
        product(folder, upstream_url=gemini.url, environment={"NANOBATCH_DRAIN_SECONDS": "1"}) as running,
    ):
        yield Shared(running, gemini)


def rows(data: Path, query: str) -> list[tuple]:
    with sqlite3.connect(f"file:{data / 'nanobatch.db'}?mode=ro", uri=True) as database:
        return database.execute(query).fetchall()


async def end_of(client, execution_id):
    async for _ in client.watch(execution_id):
        pass
    return await client.get_execution(execution_id)


async def test_a_list_of_prompts_becomes_a_folder_of_pictures(tmp_path, shared, connect):
    await (await connect(shared.product.target)).__aexit__(None, None, None)
    target, prompts = shared.product.target, ROOT / "examples/prompts.txt"
    done = await asyncio.to_thread(cli, tmp_path, target, "run", str(prompts), "-o", "pictures", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    count = len(document["results"])
    assert count == 10
    manifest = json.loads((tmp_path / "pictures/manifest.json").read_text())
    files = sorted(path.name for path in (tmp_path / "pictures").glob("*.png"))
    assert len(files) == count
    assert files[0].startswith("001-")
    assert sorted(result["file"] for result in manifest["results"]) == files
    assert "Traceback" not in done.stderr


async def test_gemini_pictures_through_the_real_client_and_a_ledger_equal_to_the_usage_served(
    tmp_path, gemini, connect
):
    with product(tmp_path, upstream_url=gemini.url) as running:
        await (await connect(running.target)).__aexit__(None, None, None)
        done = await asyncio.to_thread(
            cli, tmp_path, running.target, "run", str(ROOT / "examples/prompts.txt"), "-o", "p", GEMINI_API_KEY=KEY
        )
        assert done.returncode == 0, done.stderr
        assert [call.status for call in gemini.calls] == [200] * 10
        assert len(gemini.checks) == 1
        ((cost, pictures),) = rows(
            running.data, "select sum(cost_micros), sum(image_output_tokens) from attempts where charged = 'YES'"
        )
        served = sum(
            -(-(call.usage["promptTokenCount"] * 300_000 + 1290 * 30_000_000) // 1_000_000) for call in gemini.calls
        )
        assert pictures == 12_900
        assert cost == served
        # The key is nowhere in the clear, and its record is wiped with the run.
        assert rows(running.data, "select count(*) from credentials where record is not null") == [(0,)]
        for path in (path for folder in (tmp_path,) for path in folder.rglob("*") if path.is_file()):
            assert KEY.encode() not in path.read_bytes(), path


async def test_kill_dash_nine_in_the_middle_loses_nothing_and_pays_for_nothing_twice(tmp_path, gemini, connect):
    gemini._latency = lambda call: 0.15 + 0.2 * (call.number % 5) / 5
    with product(tmp_path, upstream_url=gemini.url) as running:
        client = await connect(running.target)
        execution = await client.create_execution([f"prompt number {n}" for n in range(100)], model=MODEL, api_key=KEY)
        await eventually(lambda: len(gemini.calls) >= 40, within=60)
        in_flight = gemini.in_flight
        running.popen.send_signal(signal.SIGKILL)
        running.popen.wait()
        in_flight = max(in_flight, gemini.in_flight)
        await client.__aexit__(None, None, None)
    with product(tmp_path, upstream_url=gemini.url, data=running.data) as again:
        client = await connect(again.target)
        done = await asyncio.wait_for(end_of(client, execution.id), 90)
        results = [one async for one in client.list_results(execution.id)]
        await client.__aexit__(None, None, None)
        assert done.state is ExecutionState.COMPLETED
        assert [one.state for one in results] == [ResultState.COMPLETED] * 100
        assert len({one.image_id for one in results}) == 100
        assert 100 <= len(gemini.calls) <= 100 + 10
        # The ledger is written before each call: what the kill cut between the two is there without a call.
        ((written, still_open),) = rows(again.data, "select count(*), sum(charged is null) from attempts")
        assert len(gemini.calls) <= written <= len(gemini.calls) + 10
        assert still_open == 0
        masters = list((again.data / "pictures").rglob("*.png"))
        assert len(masters) == 100  # the sweeper has nothing to do: no orphan, nothing twice


async def test_an_invalid_key_costs_no_call_and_another_key_goes_on(shared, connect):
    client = await connect(shared.product.target)
    execution = await client.create_execution(["an ark", "another ark"], model=MODEL, api_key="bad-key")
    paused = await eventually(lambda: wait_for(client, execution.id, lambda e: e.state is ExecutionState.PAUSED))
    assert paused.pause_reason.name == "INVALID_KEY"
    assert shared.calls("ark") == 0
    await client.resume_execution(execution.id, api_key=KEY)
    done = await asyncio.wait_for(end_of(client, execution.id), 30)
    assert done.stats.completed == 2
    assert shared.calls("ark") == 2
    await client.__aexit__(None, None, None)


async def wait_for(client, execution_id, condition):
    execution = await client.get_execution(execution_id)
    return execution if condition(execution) else None


@pytest.mark.parametrize(
    ("marker", "state", "code", "charged", "calls"),
    [
        ("{{fault:500x1}}", "COMPLETED", None, None, 2),
        ("{{fault:500}}", "FAILED", "PROVIDER_", "NO", 3),
        ("{{fault:no-image}}", "FAILED", "", None, 3),
        ("{{fault:image-safety}}", "FAILED", "CONTENT_BLOCKED", "MAYBE", 1),
        ("{{fault:broken-base64}}", "FAILED", "", None, 2),
        ("{{fault:reset}}", "FAILED", "", "MAYBE", 2),
        ("{{fault:400-field}}", "FAILED", "", "NO", 1),
        ("{{fault:429-nowx1}}", "COMPLETED", None, None, 2),
    ],
)
async def test_a_fault_of_the_provider_ends_as_designed(shared, connect, marker, state, code, charged, calls):
    client = await connect(shared.product.target)
    # A key of its own: a quota that one of them meets is no other's.
    execution = await client.create_execution([f"a boat {marker}"], model=MODEL, api_key=f"{KEY}-{marker}")
    await asyncio.wait_for(end_of(client, execution.id), 60)
    (result,) = [one async for one in client.list_results(execution.id)]
    await client.__aexit__(None, None, None)
    assert result.state.name == state
    assert shared.calls(marker) == calls
    assert result.attempts == calls
    if state == "FAILED":
        assert result.error.code.startswith(code)
        assert result.error.message.endswith((".", ")", '"'))
        assert KEY not in result.error.message
        if charged:
            assert result.error.charged.name == charged


async def test_a_hanging_provider_is_given_up_at_the_deadline(shared, connect):
    client = await connect(shared.product.target)
    execution = await client.create_execution(
        ["{{fault:hang}} a boat", "a car"],
        model=MODEL,
        api_key=KEY,
        timeout=timedelta(seconds=1),
        on_unknown=UnknownPolicy.FAIL,
    )
    done = await asyncio.wait_for(end_of(client, execution.id), 30)
    assert (done.stats.completed, done.stats.failed) == (1, 1)
    assert done.stats.uncertain_cost_micros > 0
    await client.__aexit__(None, None, None)


async def test_pause_resume_cancel_retry_and_delete_work(shared, connect):
    client = await connect(shared.product.target)
    execution = await client.create_execution([f"[delay:0.3] boat {n}" for n in range(40)], model="sandbox")
    await client.pause_execution(execution.id)
    await eventually(lambda: wait_for(client, execution.id, lambda e: e.stats.processing == 0))
    resumed = await client.resume_execution(execution.id)
    assert resumed.state is not ExecutionState.PAUSED
    await eventually(lambda: wait_for(client, execution.id, lambda e: e.stats.completed >= 3), within=20)
    cancelled = await client.cancel_execution(execution.id)
    assert cancelled.execution.state is ExecutionState.CANCELLED
    with pytest.raises(NanobatchError) as caught:
        await client.delete_execution((await client.create_execution(["[delay:5] x"], model="sandbox")).id)
    assert caught.value.reason == "EXECUTION_ACTIVE"
    done = await asyncio.wait_for(end_of(client, execution.id), 20)
    left = [one.id async for one in client.list_results(execution.id) if one.state is ResultState.CANCELLED]
    retried = await client.retry_execution(execution.id, result_ids=left[:3])
    assert retried.retried == 3
    done = await asyncio.wait_for(end_of(client, execution.id), 20)
    assert done.stats.completed >= 6
    await client.delete_execution(execution.id)
    with pytest.raises(NanobatchError) as caught:
        await client.get_execution(execution.id)
    assert caught.value.reason == "EXECUTION_NOT_FOUND"
    await client.__aexit__(None, None, None)


async def test_a_stop_finishes_what_runs_gives_back_the_rest_and_exits_0(tmp_path, connect):
    with product(tmp_path) as running:
        client = await connect(running.target)
        execution = await client.create_execution([f"[delay:0.5] boat {n}" for n in range(60)], model="sandbox")
        await eventually(lambda: wait_for(client, execution.id, lambda e: e.stats.processing >= 5))
        await client.__aexit__(None, None, None)
        started = time.monotonic()
        running.popen.terminate()
        assert await asyncio.to_thread(running.popen.wait, 20) == 0
        assert time.monotonic() - started < 15
        # Nothing counts as lost, spent or tried: what was not sent was given back.
        assert rows(running.data, "select count(*) from attempts where charged is null or charged = 'MAYBE'") == [(0,)]
        assert rows(running.data, "select count(*) from results where state = 'PROCESSING'") == [(0,)]


async def test_a_second_start_in_the_same_folder_is_refused_with_a_sentence(tmp_path, connect):
    with product(tmp_path) as running:
        await (await connect(running.target)).__aexit__(None, None, None)
        second = await asyncio.to_thread(
            cli, tmp_path, running.target, "up", "--data", str(running.data), "--gateway", "127.0.0.1:0"
        )
        assert second.returncode == 1
        assert "Traceback" not in second.stderr
        assert "nanobatch cannot start" in second.stderr


async def test_the_encryption_key_is_made_once_and_is_for_its_owner_alone(tmp_path, connect):
    with product(tmp_path) as running:
        await (await connect(running.target)).__aexit__(None, None, None)
        path = running.data / "encryption.key"
        assert path.stat().st_mode & 0o777 == 0o600
        key = path.read_text()
    with product(tmp_path, data=running.data) as again:
        await (await connect(again.target)).__aexit__(None, None, None)
        assert path.read_text() == key


async def test_a_database_without_its_key_is_no_reason_to_make_another(tmp_path, connect):
    with product(tmp_path) as running:
        await (await connect(running.target)).__aexit__(None, None, None)
    (running.data / "encryption.key").rename(tmp_path / "kept")
    words = ("up", "--data", str(running.data), "--gateway", "127.0.0.1:0")
    refused = await asyncio.to_thread(cli, tmp_path, running.target, *words)
    assert refused.returncode == 1
    assert "encryption.key is missing" in refused.stderr
    assert not (running.data / "encryption.key").exists()
