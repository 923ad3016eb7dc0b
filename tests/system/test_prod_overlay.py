"""The services as processes, each with the very environment and secrets that its pod has in overlay prod."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections import Counter

import httpx
import pytest
from deploy.namespace import Namespace, namespace
from scrape import scrape, status

from nanobatch_client import Client
from nanobatch_client.errors import NanobatchError
from nanobatch_client.models import ExecutionState, ResultState
from nanobatch_runtime.testing import eventually


@pytest.fixture
def pods(tmp_path, postgres_server, redis_server, s3_server):
    with namespace(tmp_path, postgres_server, redis_server, s3_server) as made:
        yield made


@pytest.mark.timeout(300)
async def test_the_main_job_runs_in_the_environment_of_prod_while_generators_come_and_go(pods, tmp_path):
    assert await asyncio.to_thread(pods.start("migrate").wait, 60) == 0, (tmp_path / "migrate.log").read_text()
    for pod in ("gateway-1", "web", "generator-1", "storage-1"):  # any order
        pods.start(pod)
    for pod in ("storage-1", "generator-1", "gateway-1"):
        await eventually(lambda pod=pod: pods.ready(pod), within=90)

    target = f"{pods.addresses['gateway-1']}:50051"
    async with Client(target, token=pods.token) as client:
        first = await client.create_execution(["a red boat"], model="sandbox")
        async for _ in client.watch(first.id):
            pass
        (result,) = [each async for each in client.list_results(first.id)]
        assert result.state is ResultState.COMPLETED
        assert result.image_url.startswith("https://api.pictures.example/images/")

        # In the middle of its work the only generator is told to go, and another one comes.
        prompts = [f"[delay:{1 + number % 5}] boat {number}" for number in range(20)]
        run = await client.create_execution(prompts, model="sandbox")
        leaving = None
        async for _ in client.watch(run.id):
            if leaving is None and [each async for each in client.list_results(run.id, states=[ResultState.COMPLETED])]:
                leaving = pods.pods["generator-1"]
                leaving.send_signal(signal.SIGTERM)
                pods.start("generator-2")
        assert (await client.get_execution(run.id)).state is ExecutionState.COMPLETED
        results = [each async for each in client.list_results(run.id)]
        assert len(results) == 20
        assert {(each.state, each.attempts) for each in results} == {(ResultState.COMPLETED, 1)}
        assert await asyncio.to_thread(leaving.wait, 30) == 0

    for pod, shown in (("gateway-1", "nanobatch_watchers"), ("storage-1", "nanobatch_queue_age_seconds"),
                       ("generator-2", "nanobatch_slots"), ("web", "nanobatch_loop_lag_seconds")):  # fmt: skip
        port = f"{pods.addresses[pod]}:9090"  # as the component `metrics` has it
        await eventually(lambda port=port: status(port, "/readyz") == 200, within=60)
        assert list((await asyncio.to_thread(scrape, port)).values(shown)), pod

    await every_pod_is_well(pods)

    page, http = (f"http://{pods.addresses[pod]}:{port}" for pod, port in (("web", 7860), ("gateway-1", 8080)))
    async with httpx.AsyncClient(trust_env=False) as browser:

        async def healthy() -> bool:  # what the kubelet asks, by address
            try:
                return (await browser.get(f"{page}/healthz")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(healthy, within=90)
        # What the Ingress passes on, under the names of the settings.
        assert (await browser.get(f"{page}/", headers={"Host": "pictures.example"})).status_code == 401  # a login
        assert (await browser.get(f"{page}/", headers={"Host": "elsewhere.example"})).status_code == 403
        name = {"Host": "api.pictures.example"}
        address = f"{http}/api/executions/{run.id}"
        assert (await browser.get(address, headers=name)).status_code == 401
        shown = {**name, "Authorization": f"Bearer {pods.token}"}
        assert (await browser.get(address, headers=shown)).status_code == 200
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()[-4000:]


async def every_pod_is_well(pods: Namespace) -> None:
    """Ask `nanobatch doctor` in each pod: it asks what that pod may ask, and nothing else."""
    asked = {
        "storage-1": {"database", "schema", "clock", "queue", "tasks", "pictures", "redis", "storage"},
        "generator-2": {"redis", "storage", "generator", "key ring"},
        "gateway-1": {"redis", "storage", "generator", "gateway", "key ring"},
        "web": {"gateway"},
    }
    for pod, checks in asked.items():
        ran = await asyncio.to_thread(pods.execute, pod, "doctor", "--json")
        assert ran.returncode == 0, (pod, ran.stdout, ran.stderr)
        found = json.loads(ran.stdout)["findings"]
        assert {each["check"] for each in found if each["verdict"] == "ok"} == checks, pod
        assert {each["check"] for each in found} >= {"storage", "generator", "gateway"}, pod


class Load:
    """Runs on the sandbox, a watcher for each, and calls at every gateway in turn, until it is stopped."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.executions: list[str] = []
        self.finals: Counter[str] = Counter()
        """How often a watcher was told the end of a result."""
        self.made = 0
        self.failed: list[str] = []

    async def run(self, runners: int, prompts: int, stop: asyncio.Event) -> None:
        """Start run after run, ``runners`` at a time, and ask after them, until ``stop`` is set and the last have ended."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(runners):
                tasks.create_task(self._start_runs(prompts, stop))
            while not stop.is_set():
                await asyncio.sleep(0.1)
                if not self.executions:
                    continue
                try:
                    await self._client.get_execution(self.executions[self.made % len(self.executions)])
                except NanobatchError as error:
                    self.failed.append(f"{type(error).__name__}: {error}")
                self.made += 1

    async def _start_runs(self, prompts: int, stop: asyncio.Event) -> None:
        while not stop.is_set():
            texts = [f"[delay:{2 + each % 4}] boat {each}" for each in range(prompts)]
            execution = await self._client.create_execution(texts, model="sandbox")
            self.executions.append(execution.id)
            await self._watch(execution.id)

    async def _watch(self, execution_id: str) -> None:
        async for update in self._client.watch(execution_id):
            result = getattr(update, "result", None)
            if result is not None and result.state is ResultState.COMPLETED:
                self.finals[result.id] += 1


@pytest.mark.timeout(600)
async def test_generators_are_scaled_and_everything_is_rolled_under_load_and_nobody_notices(pods: Namespace, tmp_path):
    assert await asyncio.to_thread(pods.start("migrate").wait, 90) == 0, (tmp_path / "migrate.log").read_text()
    first = ("storage-1", "storage-2", "gateway-1", "gateway-2", "generator-1")
    for pod in first:
        pods.start(pod)
    for pod in first:
        await eventually(lambda pod=pod: pods.ready(pod), within=120)
    target = "ipv4:" + ",".join(f"{pods.addresses[pod]}:50051" for pod in ("gateway-1", "gateway-2"))
    stop, prompts = asyncio.Event(), 20
    async with Client(target, token=pods.token) as client:
        load = Load(client)
        loading = asyncio.create_task(load.run(4, prompts, stop))
        await eventually(lambda: sum(load.finals.values()) >= 5, within=90)

        for pod in ("generator-2", "generator-3", "generator-4"):  # 1 -> 4
            pods.start(pod)
        await eventually(lambda: all(done(tmp_path, f"generator-{n}") for n in (1, 2, 3, 4)), within=120)
        for pod in ("generator-1", "generator-2"):  # 4 -> 2
            assert await stopped(pods, pod) == 0
        # One of each service; `make soak SCENARIO=9` rolls all of them.
        for pod in ("storage-1", "gateway-1", "generator-3"):
            assert await stopped(pods, pod) == 0
            pods.start(pod)
            await eventually(lambda pod=pod: pods.ready(pod), within=90)
        stop.set()
        await asyncio.wait_for(loading, 240)

        for execution_id in load.executions:
            results = [each async for each in client.list_results(execution_id)]
            assert {(each.state, each.attempts) for each in results} == {
                (ResultState.COMPLETED, 1)
            }  # none was disturbed
    assert load.failed == []
    assert load.made > 50
    assert set(load.finals.values()) == {1}
    assert len(load.finals) == len(load.executions) * prompts
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()[-4000:]


def done(folder, pod: str) -> int:
    """Return how many results a generator has finished, by its own log."""
    log = folder / f"{pod}.log"
    return len(re.findall("result.finished", log.read_text())) if log.exists() else 0


async def stopped(pods: Namespace, pod: str) -> int:
    pods.pods[pod].send_signal(signal.SIGTERM)
    return await asyncio.to_thread(pods.pods[pod].wait, 60)
