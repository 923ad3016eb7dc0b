"""The services as processes, each with the very environment and secrets that its pod has in overlay prod.

A pod is an address of its own on loopback, so that ports stay those of the manifests.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import subprocess
from pathlib import Path

import grpc
import httpx
import pytest
from deploy.rendered import lay_out, made_secrets, render
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import NANOBATCH, bare_environment

from nanobatch_client import Client
from nanobatch_client.models import ExecutionState, ResultState
from nanobatch_runtime.testing import eventually


class Namespace:
    """Pods of the rendered overlay; ``addresses`` is what the names of Services resolve to."""

    def __init__(self, folder: Path, database_url: str, redis_url: str, store: dict[str, str]) -> None:
        self.rendered = render("prod")
        self.folder = folder
        self.net = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}"
        key = {name: store[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        self.secrets = made_secrets(NANOBATCH_DATABASE_URL=database_url, NANOBATCH_REDIS_URL=redis_url, **key)
        # Where the store of the test is, instead of the one that the overlay names.
        self.store = {name: store[name] for name in ("AWS_ENDPOINT_URL", "NANOBATCH_BLOB_URL")}
        self.pods: dict[str, subprocess.Popen] = {}
        names = ("storage", "gateway", "web", "generator-1", "generator-2", "migrate")
        self.addresses = {name: f"{self.net}.{number}" for number, name in enumerate(names, 1)}

    @property
    def token(self) -> str:
        return self.secrets["nanobatch"]["NANOBATCH_ADMIN_TOKEN"].decode()

    def start(self, pod: str) -> subprocess.Popen:
        component = pod.partition("-")[0]
        workload = self.rendered.workload(component)
        place = self.folder / pod
        (place / "secrets").mkdir(parents=True)
        lay_out(place / "secrets", workload, self.secrets)
        given = self.rendered.environment(workload)
        environment = {name: self.store.get(name) or self._here(value, pod) for name, value in given.items()}
        command = workload.container.get("command", ["nanobatch", "serve", component])
        bare = bare_environment(place)
        bare.pop("NANOBATCH_GATEWAY_HTTP")
        with (self.folder / f"{pod}.log").open("ab") as log:
            self.pods[pod] = subprocess.Popen(
                [NANOBATCH, *command[1:]], env=bare | environment, stdout=log, stderr=log, cwd=place
            )
        return self.pods[pod]

    def _here(self, value: str, pod: str) -> str:
        if value.startswith("dns:///"):
            host, _, port = value.removeprefix("dns:///").rpartition(":")
            service = self.rendered.service(host)
            component = self.rendered.behind(service)[0].component
            found = [address for name, address in self.addresses.items() if name.partition("-")[0] == component]
            return "ipv4:" + ",".join(f"{address}:{port}" for address in found)
        return (
            value.replace("0.0.0.0", self.addresses[pod])  # noqa: S104  # to replace it
            .replace("/run/secrets/nanobatch", str(self.folder / pod / "secrets"))
            .replace("/var/lib/nanobatch", str(self.folder / pod / "data"))
        )

    async def ready(self, pod: str) -> bool:
        """Ask what the pod's readiness probe asks."""
        probe = self.rendered.workload(pod.partition("-")[0]).container["readinessProbe"]["grpc"]
        async with grpc.aio.insecure_channel(f"{self.addresses[pod]}:{probe['port']}") as channel:
            request = health_pb2.HealthCheckRequest(service=probe.get("service", ""))
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
            except grpc.aio.AioRpcError:
                return False
            return answer.status == health_pb2.HealthCheckResponse.SERVING

    def end(self) -> None:
        for each in self.pods.values():
            if each.poll() is None:
                each.send_signal(signal.SIGTERM)
        for each in self.pods.values():
            try:
                each.wait(40)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()


@pytest.fixture
def namespace(tmp_path, postgres_server, redis_server, s3_server):
    name = postgres_server.create()
    store = s3_server.environment(s3_server.bucket())
    made = Namespace(tmp_path, postgres_server.url(name), redis_server.url, store)
    try:
        yield made
    finally:
        made.end()
        postgres_server.drop(name)


@pytest.mark.timeout(300)
async def test_the_main_job_runs_in_the_environment_of_prod_while_generators_come_and_go(namespace, tmp_path):
    assert await asyncio.to_thread(namespace.start("migrate").wait, 60) == 0, (tmp_path / "migrate.log").read_text()
    for pod in ("gateway", "web", "generator-1", "storage"):  # any order
        namespace.start(pod)
    for pod in ("storage", "generator-1", "gateway"):
        await eventually(lambda pod=pod: namespace.ready(pod), within=90)

    target = f"{namespace.addresses['gateway']}:50051"
    async with Client(target, token=namespace.token) as client:
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
                leaving = namespace.pods["generator-1"]
                leaving.send_signal(signal.SIGTERM)
                namespace.start("generator-2")
        assert (await client.get_execution(run.id)).state is ExecutionState.COMPLETED
        results = [each async for each in client.list_results(run.id)]
        assert len(results) == 20
        assert {(each.state, each.attempts) for each in results} == {(ResultState.COMPLETED, 1)}
        assert await asyncio.to_thread(leaving.wait, 30) == 0

    page, http = (f"http://{namespace.addresses[pod]}:{port}" for pod, port in (("web", 7860), ("gateway", 8080)))
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
        shown = {**name, "Authorization": f"Bearer {namespace.token}"}
        assert (await browser.get(address, headers=shown)).status_code == 200
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()[-4000:]
