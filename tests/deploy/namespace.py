"""The pods of the rendered overlay prod as processes, each with its pod's very environment and secrets.

A pod is an address of its own on loopback, so that ports stay those of the manifests.
"""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
from deploy.dockerfile import image
from deploy.rendered import lay_out, made_secrets, render
from grpc_health.v1 import health_pb2, health_pb2_grpc
from image_requirements import image as installed_in
from image_requirements import members
from postgres_server import PostgresServer
from processes import NANOBATCH, bare_environment
from redis_server import RedisServer
from s3_server import S3Server

PODS = (
    *("storage-1", "storage-2", "gateway-1", "gateway-2", "web-1", "web-2"),
    *("generator-1", "generator-2", "generator-3", "generator-4", "migrate"),
)
RUN = "from nanobatch_client.cli.main import main; main()"


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
        self.addresses = {name: f"{self.net}.{number}" for number, name in enumerate(PODS, 1)}

    @property
    def token(self) -> str:
        return self.secrets["nanobatch"]["NANOBATCH_ADMIN_TOKEN"].decode()

    def start(self, pod: str) -> subprocess.Popen:
        """Start a pod, or its successor at the same address."""
        component = pod.partition("-")[0]
        workload = self.rendered.workload(component)
        place = self.folder / pod
        (place / "secrets").mkdir(parents=True, exist_ok=True)
        lay_out(place / "secrets", workload, self.secrets)
        program, *words = image(workload.container["image"]).words(workload.container)
        assert program == NANOBATCH.name, program
        with (self.folder / f"{pod}.log").open("ab") as log:
            self.pods[pod] = subprocess.Popen(
                [NANOBATCH, *words], env=self.environment(pod), stdout=log, stderr=log, cwd=place
            )
        return self.pods[pod]

    def environment(self, pod: str) -> dict[str, str]:
        """Return all that the process in a pod finds in its environment."""
        given = self.rendered.environment(self.rendered.workload(pod.partition("-")[0]))
        bare = bare_environment(self.folder / pod)
        bare.pop("NANOBATCH_GATEWAY_HTTP")
        return bare | {name: self.store.get(name) or self._here(value, pod) for name, value in given.items()}

    def execute(self, pod: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``nanobatch WORDS`` in a pod that was started, with the packages of its image alone, until it ends."""
        installed = installed_in(pod.partition("-")[0])[0]
        absent = [name.replace("-", "_") for name in members().keys() - installed]
        hide = "import sys; sys.modules |= dict.fromkeys(sys.argv.pop(1).split())"
        return subprocess.run(
            [sys.executable, "-c", f"{hide}; {RUN}", " ".join(absent), *words],
            env=self.environment(pod),
            cwd=self.folder / pod,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

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
        workload = self.rendered.workload(pod.partition("-")[0])
        probe = workload.container["readinessProbe"]
        if "httpGet" in probe:
            return await self._answers(pod, workload.ports[probe["httpGet"]["port"]], probe["httpGet"]["path"])
        probe = probe["grpc"]
        async with grpc.aio.insecure_channel(f"{self.addresses[pod]}:{probe['port']}") as channel:
            request = health_pb2.HealthCheckRequest(service=probe.get("service", ""))
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
            except grpc.aio.AioRpcError:
                return False
            return answer.status == health_pb2.HealthCheckResponse.SERVING

    async def _answers(self, pod: str, port: int, path: str) -> bool:
        async with httpx.AsyncClient(trust_env=False) as kubelet:
            try:
                return (await kubelet.get(f"http://{self.addresses[pod]}:{port}{path}")).is_success
            except httpx.TransportError:
                return False

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


@contextmanager
def namespace(folder: Path, postgres: PostgresServer, redis: RedisServer, objects: S3Server) -> Iterator[Namespace]:
    """Make a namespace without pods; they have ended with the context."""
    name = postgres.create()
    made = Namespace(folder, postgres.url(name), redis.url, objects.environment(objects.bucket()))
    try:
        yield made
    finally:
        made.end()
        postgres.drop(name)
