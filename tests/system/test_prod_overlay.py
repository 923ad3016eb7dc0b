"""The services as processes, each with the very environment and secrets that its pod has in overlay prod."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections import Counter

import httpx
import pytest
from asking import Asking
from deploy.namespace import Namespace, namespace
from scrape import scrape, status

from nanobatch_client import Client
from nanobatch_client.models import ExecutionState, ResultState
from nanobatch_runtime.testing import eventually
from nanobatch_web.settings import OWN
from nanobatch_web.viewers import COOKIE


@pytest.fixture
def pods(tmp_path, postgres_server, redis_server, s3_server):
    with namespace(tmp_path, postgres_server, redis_server, s3_server) as made:
        yield made


@pytest.mark.timeout(300)
async def test_the_main_job_runs_in_the_environment_of_prod_while_generators_come_and_go(pods, tmp_path):
    assert await asyncio.to_thread(pods.start("migrate").wait, 60) == 0, (tmp_path / "migrate.log").read_text()
    for pod in ("gateway-1", "web-1", "generator-1", "storage-1"):  # any order
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
                       ("generator-2", "nanobatch_slots"), ("web-1", "nanobatch_loop_lag_seconds")):  # fmt: skip
        port = f"{pods.addresses[pod]}:9090"  # as the component `metrics` has it
        await eventually(lambda port=port: status(port, "/readyz") == 200, within=60)
        assert list((await asyncio.to_thread(scrape, port)).values(shown)), pod

    await every_pod_is_well(pods)

    page, http = (f"http://{pods.addresses[pod]}:{port}" for pod, port in (("web-1", 7860), ("gateway-1", 8080)))
    await eventually(lambda: pods.ready("web-1"), within=90)
    async with httpx.AsyncClient(trust_env=False) as browser:
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
        "storage-1": {"database", "schema", "row security", "clock", "queue", "tasks", "pictures", "redis", "storage"},
        "generator-2": {"redis", "storage", "generator", "key ring"},
        "gateway-1": {"redis", "storage", "generator", "gateway", "key ring"},
        "web-1": {"gateway"},
    }
    for pod, checks in asked.items():
        ran = await asyncio.to_thread(pods.execute, pod, "doctor", "--json")
        assert ran.returncode == 0, (pod, ran.stdout, ran.stderr)
        found = json.loads(ran.stdout)["findings"]
        assert {each["check"] for each in found if each["verdict"] == "ok"} == checks, pod
        assert {each["check"] for each in found} >= {"storage", "generator", "gateway"}, pod


class Tabs:
    """Browsers' tabs that follow runs on the page: each asks again and again, at a pod behind the page's Service."""

    def __init__(self, pods: Namespace, browser: httpx.AsyncClient) -> None:
        self.behind = "web-1"
        """Where the Service leads to: a pod that is about to go is taken out before it is stopped."""
        self.told: dict[str, dict[str, str]] = {}
        """The states of results as a tab was last told, by execution."""
        self.asked: Counter[str] = Counter()
        self.out: Counter[str] = Counter()
        """Questions that wait for an answer, by pod."""
        self.wrong: list[str] = []
        self._pods, self._browser = pods, browser

    async def follow(self, execution_id: str) -> None:
        """Ask what is new of a run until it has ended, and all its results with it."""
        known: dict[str, dict] = {}
        seen, is_final = {"since": "", "epoch": "", "tab": execution_id}, False
        while not is_final or any(each["state"] not in {"COMPLETED", "FAILED", "CANCELLED"} for each in known.values()):
            pod = self.behind
            answer = await self._ask(pod, execution_id, seen)
            if answer is None:
                await asyncio.sleep(0.25)
                continue
            news = answer.json()
            for result in news["results"]:
                if result["revision"] < known.get(result["id"], result)["revision"]:
                    self.wrong.append(f"{pod} told what was old: {result}")
                known[result["id"]] = result
            seen |= {"since": news["version"], "epoch": news["epoch"]}
            is_final = is_final or news.get("execution", {}).get("final", False)
            await asyncio.sleep(int(answer.headers["x-poll-milliseconds"]) / 1000)
        self.told[execution_id] = {name: each["state"] for name, each in known.items()}

    async def _ask(self, pod: str, execution_id: str, seen: dict) -> httpx.Response | None:
        self.asked[pod] += 1
        self.out[pod] += 1
        try:
            answer = await self._browser.get(
                f"http://{self._pods.addresses[pod]}:7860{OWN}/live/{execution_id}",
                params=seen,
                headers={"Host": "pictures.example", "Cookie": f"{COOKIE}={self._pods.token}"},
            )
            answer.raise_for_status()
        except httpx.HTTPError as error:
            self.wrong.append(f"{pod}: {error!r}")
            return None
        finally:
            self.out[pod] -= 1
        return answer


class Load:
    """Runs on the sandbox, a watcher and a tab for each, and calls at every gateway in turn, until it is stopped."""

    def __init__(self, client: Client, asking: Asking, tabs: Tabs) -> None:
        self._client, self._asking, self._tabs = client, asking, tabs
        self.executions: list[str] = []
        self.finals: Counter[str] = Counter()
        """How often a watcher was told the end of a result."""

    async def run(self, runners: int, prompts: int, stop: asyncio.Event) -> None:
        """Start run after run, ``runners`` at a time, and ask after them, until ``stop`` is set and the last have ended."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(runners):
                tasks.create_task(self._start_runs(prompts, stop))
            while not stop.is_set():
                await asyncio.sleep(0.05)
                if self.executions:
                    await self._asking.read(self.executions[self._asking.made.total() % len(self.executions)])

    async def _start_runs(self, prompts: int, stop: asyncio.Event) -> None:
        while not stop.is_set():
            texts = [f"[delay:{2 + each % 4}] boat {each}" for each in range(prompts)]
            execution = await self._client.create_execution(texts, model="sandbox")
            self.executions.append(execution.id)
            await asyncio.gather(self._watch(execution.id), self._tabs.follow(execution.id))

    async def _watch(self, execution_id: str) -> None:
        async for update in self._client.watch(execution_id):
            result = getattr(update, "result", None)
            if result is not None and result.state is ResultState.COMPLETED:
                self.finals[result.id] += 1


@pytest.mark.timeout(600)
async def test_generators_are_scaled_and_everything_is_rolled_under_load_and_nobody_notices(pods: Namespace, tmp_path):
    assert await asyncio.to_thread(pods.start("migrate").wait, 90) == 0, (tmp_path / "migrate.log").read_text()
    first = ("storage-1", "storage-2", "gateway-1", "gateway-2", "web-1", "generator-1")
    for pod in first:
        pods.start(pod)
    for pod in first:
        await eventually(lambda pod=pod: pods.ready(pod), within=120)
    target = "ipv4:" + ",".join(f"{pods.addresses[pod]}:50051" for pod in ("gateway-1", "gateway-2"))
    stop, prompts, created = asyncio.Event(), 20, []
    async with Client(target, token=pods.token) as client, httpx.AsyncClient(trust_env=False, timeout=30) as browser:
        asking, tabs = Asking(client, tmp_path, model="sandbox"), Tabs(pods, browser)
        load = Load(client, asking, tabs)
        loading = asyncio.create_task(load.run(2, prompts, stop))
        await eventually(lambda: sum(load.finals.values()) >= 5, within=90)

        for pod in ("generator-2", "generator-3", "generator-4"):  # 1 -> 4
            pods.start(pod)
        await eventually(lambda: all(done(tmp_path, f"generator-{n}") for n in (1, 2, 3, 4)), within=120)
        for pod in ("generator-1", "generator-2"):  # 4 -> 2
            assert await stopped(pods, pod) == 0
        for pod in ("storage-1", "storage-2", "gateway-1", "gateway-2", "generator-3", "generator-4"):
            stopping = asyncio.create_task(stopped(pods, pod))
            created.append(await asking.create(f"a boat as {pod} goes"))
            assert await stopping == 0
            pods.start(pod)
            await eventually(lambda pod=pod: pods.ready(pod), within=90)
        # The page has one replica: its successor is there before it goes, and it is told to go after what it was asked last.
        pods.start("web-2")
        await eventually(lambda: pods.ready("web-2"), within=90)
        tabs.behind = "web-2"
        before_stop = pods.rendered.workload("web").container["lifecycle"]["preStop"]["sleep"]["seconds"]
        await eventually(lambda: not tabs.out["web-1"], within=before_stop)
        stopping = asyncio.create_task(stopped(pods, "web-1"))
        created.append(await asking.create("a boat as the page goes"))
        assert await stopping == 0
        await eventually(lambda: tabs.asked["web-2"] >= 20, within=60)
        stop.set()
        await asyncio.wait_for(loading, 240)

        for execution_id in created:
            assert execution_id, asking.failed
            async for _ in client.watch(execution_id):
                pass
        for execution_id in (*load.executions, *created):
            results = [each async for each in client.list_results(execution_id)]
            assert {(each.state, each.attempts) for each in results} == {
                (ResultState.COMPLETED, 1)
            }  # none was disturbed
    assert asking.failed == []
    assert not asking.never_made
    assert tabs.wrong == []
    assert tabs.told.keys() == set(load.executions)
    assert {(len(told), *set(told.values())) for told in tabs.told.values()} == {(prompts, "COMPLETED")}
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
