"""The product as operators run it, in processes of its own, on a stage where anything can be killed, frozen or cut off."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import signal
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc
from names import Names, name_server
from postgres_server import PostgresServer
from processes import Cluster, Upstream, cluster, free_port, upstream
from redis_server import RedisServer, private_redis

from nanobatch.gateway.v1 import execution_pb2, execution_service_pb2
from nanobatch.gateway.v1.execution_service_pb2_grpc import ExecutionServiceStub
from soak.faultproxy import FaultProxy
from soak.generators import Generator
from soak.ground import KEY, MODEL, Ground, NotStartedError, Setup, StuckError, packages
from soak.report import Report
from soak.watchers import Watchers

ENDED = {
    execution_pb2.EXECUTION_STATE_COMPLETED,
    execution_pb2.EXECUTION_STATE_FAILED,
    execution_pb2.EXECUTION_STATE_CANCELLED,
}
_START_SECONDS = 120.0
_CALL_SECONDS = 60.0


class Stage:
    """A running cluster with its database, its provider and its watchers. Make it with :func:`stage`."""

    def __init__(self, ground: Ground, folder: Path, setup: Setup, *, database: str) -> None:
        self.ground, self.folder, self.setup, self.database = ground, folder, setup, database
        self.random = random.Random(ground.seed)
        self.proxies: dict[str, FaultProxy] = {}
        self.redis: RedisServer
        self.names: Names
        self.provider: Upstream
        self.cluster: Cluster
        self.watchers: Watchers
        self.provider_url = self.storage_target = ""
        self.gateway_ports = [free_port() for _ in range(setup.gateways)]
        self.storage_ports = [free_port() for _ in range(setup.storages)]
        self.generators = [Generator(self, n) for n in range(1, setup.generators + 1)]
        self.gateways: list[subprocess.Popen] = []
        self.storages: list[subprocess.Popen] = []
        self.executions: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.expected_failures = 0
        self._channels: list[grpc.aio.Channel] = []
        self._turn = itertools.count()
        self._looking: psycopg.Connection | None = None

    # -- processes -------------------------------------------------------------------------------------------------

    def start_storage(self, number: int, **own: str) -> subprocess.Popen:
        place = {"NANOBATCH_STORAGE_GRPC": f"127.0.0.1:{self.storage_ports[number]}"}
        return self.cluster.storage(f"s{number + 1}", **place, **own)

    def start_gateway(self, number: int, **own: str) -> subprocess.Popen:
        place = {"NANOBATCH_GATEWAY_GRPC": f"127.0.0.1:{self.gateway_ports[number]}"}
        return self.cluster.gateway(f"w{number + 1}", **place, **own)

    def note(self, kind: str, who: str = "", **facts: Any) -> dict[str, Any]:
        """Write down a fault; the checker explains calls by them."""
        event = {"kind": kind, "who": who, "at": time.monotonic(), "wall": time.time(), **facts}
        self.events.append(event)
        return event

    async def ready(self) -> None:
        """Wait until both ends answer."""
        for port in [*self.storage_ports, *self.gateway_ports]:
            await self.serving(port)

    async def serving(self, port: int, host: str = "127.0.0.1") -> None:
        async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            deadline = time.monotonic() + _START_SECONDS
            while True:
                with suppress(grpc.aio.AioRpcError):
                    answer = await stub.Check(
                        health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=_START_SECONDS
                    )
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                if time.monotonic() > deadline:
                    raise NotStartedError(f"nobody serves at {port}")
                await asyncio.sleep(0.05)

    # -- clients ---------------------------------------------------------------------------------------------------

    def channel(self, number: int | None = None) -> grpc.aio.Channel:
        """Return the channel to one gateway, or to each in turn."""
        return self._channels[(next(self._turn) if number is None else number) % len(self._channels)]

    def stub(self, number: int | None = None) -> ExecutionServiceStub:
        """Return a stub of one gateway, or of each in turn."""
        return ExecutionServiceStub(self.channel(number))

    async def call(self, method: str, request: Any) -> Any:
        """Call like a patient client: again, at another gateway, while nobody is there."""
        deadline = time.monotonic() + _CALL_SECONDS
        while True:
            try:
                return await getattr(self.stub(), method)(request, timeout=15)
            except grpc.aio.AioRpcError as error:
                if error.code() not in {
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    grpc.StatusCode.CANCELLED,
                }:
                    raise
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    def creation(
        self, count: int, *, request_id: str = "", key: str = KEY, words: str | list[str] = "a boat", **options: Any
    ) -> execution_service_pb2.CreateExecutionRequest:
        """Return what creates the next execution; its prompts are told apart by a marker.

        ``words`` follow the marker, in each prompt the same or one of a list.
        """
        number = len(self.executions)
        texts = [words] * count if isinstance(words, str) else words
        prompts = [execution_pb2.Prompt(text=f"[{number}-{n}] {text}") for n, text in enumerate(texts)]
        return execution_service_pb2.CreateExecutionRequest(
            request_id=request_id or str(uuid.UUID(int=self.random.getrandbits(128), version=4)),
            model=MODEL, api_key=key, prompts=prompts, **options,
        )  # fmt: skip

    async def create(self, count: int, **options: Any) -> str:
        """Create an execution (options: see :meth:`creation`); returns its id. Watchers follow it."""
        return await self.created(self.creation(count, **options))

    async def created(self, request: execution_service_pb2.CreateExecutionRequest) -> str:
        """Bring a creation about, and have watchers follow what it made."""
        answer = await self.call("CreateExecution", request)
        self.executions.append(answer.execution.id)
        self.watchers.follow(answer.execution.id, self.setup.watchers)
        return str(answer.execution.id)

    async def get(self, execution_id: str) -> Any:
        request = execution_service_pb2.GetExecutionRequest(execution_id=execution_id)
        return (await self.call("GetExecution", request)).execution

    async def ended(self, within: float) -> None:
        """Wait until every execution is final, and every watcher has been told so."""
        within = min(within, self.ground.patience)
        deadline = time.monotonic() + within
        for execution_id in self.executions:
            while True:
                execution = await self.get(execution_id)
                if execution.state in ENDED:
                    break
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not all final within {within:.0f} s: {self.counts()}; {execution.stats}")
                await asyncio.sleep(0.2)
        await self.watchers.ended(max(10.0, deadline - time.monotonic()))

    # -- looking from outside --------------------------------------------------------------------------------------

    def rows(self, query: str) -> list[tuple]:
        """Ask the database itself, over one connection: a new one for each look would cost more than the look."""
        for is_last in (False, True):
            try:
                if self._looking is None:
                    self._looking = self.ground.postgres.connect(self.database)
                return self._looking.execute(query.encode()).fetchall()
            except psycopg.OperationalError:  # the scenario may have ended it since
                self.look_away()
                if is_last:
                    raise
        raise AssertionError

    def look_away(self) -> None:
        """Close the connection of :meth:`rows`."""
        if self._looking is not None:
            self._looking.close()
            self._looking = None

    def counts(self) -> dict[str, int]:
        """Count results by state."""
        return dict(self.rows("select state, count(*) from results group by state"))

    def calls_of(self, executions: list[str]) -> list[dict[str, Any]]:
        """Return the provider's calls for prompts of these executions, in order of arrival."""
        numbers = {str(self.executions.index(one)) for one in executions}
        found = ((re.match(r"\[(\d+)-", call["prompt"]), call) for call in self.provider.calls())
        return [call for number, call in found if number and number[1] in numbers]

    def final(self) -> int:
        """Count results that are final; while the database is away, as far as was known."""
        with suppress(psycopg.OperationalError):
            states = self.counts()
            self._final = sum(states.get(state, 0) for state in ("COMPLETED", "FAILED", "CANCELLED"))
        return self._final

    _final = 0

    def log_of(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def when(self, condition: Callable[[], bool], within: float = 120.0) -> None:
        """Wait for a condition of the outside world."""
        within = min(within, self.ground.patience)
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"not within {within:.0f} s: {getattr(condition, '__doc__', '') or condition}; {self.counts()}"
                )
            await asyncio.sleep(0.05)

    async def over_the_run(self, faults: int, total: int) -> AsyncIterator[int]:
        """Yield once for each fault, spread evenly (with some chance) over the results that become final."""
        for n in range(faults):
            at = (n + self.random.uniform(0.2, 0.8)) * total / (faults + 1)
            await self.when(lambda at=at: self.final() >= at, within=300)
            yield n

    # -- the verdict -----------------------------------------------------------------------------------------------

    def verdict(self, report: Report, **expected: Any) -> None:
        """Run the checker, which knows nothing of the product, and add its lines to the report."""
        facts = {
            "dsn": f"host=127.0.0.1 port={self.ground.postgres.port} user=nanobatch dbname={self.database}",
            "provider_ledger": str(self.provider.ledger),
            "pictures": str(self.folder / "data/pictures"),
            "recordings": str(self.watchers.folder),
            "logs": str(self.folder),
            "canary": KEY,
            "clock_offset": time.time() - time.monotonic(),
            "lease_seconds": self.setup.lease_seconds,
            "events": self.events,
            **expected,
        }
        description = self.folder / "run.json"
        description.write_text(json.dumps(facts, indent=1))
        report.checked(description)


@asynccontextmanager
async def stage(ground: Ground, setup: Setup) -> AsyncIterator[Stage]:
    """Put a cluster up, and take it away without a trace but its folder."""
    if ground.is_lean:
        setup = replace(setup, generators=min(2, setup.generators))
    folder = ground.folder / f"stage-{time.monotonic_ns()}"
    folder.mkdir()
    database = ground.postgres.create()
    async with AsyncExitStack() as stack:
        stack.callback(_dropped, ground.postgres, database)
        made = Stage(ground, folder, setup, database=database)
        stack.callback(made.look_away)
        made.redis = stack.enter_context(private_redis())
        made.names = await stack.enter_async_context(name_server())
        made.provider = stack.enter_context(
            upstream(
                folder,
                picture_bytes=setup.picture_bytes,
                latency=setup.latency,
                seed=ground.seed,
                pixels=64,
                more=setup.upstream,
            )
        )

        async def door(hop: str, port: int) -> int:
            if hop not in setup.proxies:
                return port
            made.proxies[hop] = await stack.enter_async_context(FaultProxy(port, seed=ground.seed))
            return made.proxies[hop].port

        database_port = await door("database", ground.postgres.port)
        redis_port = await door("redis", made.redis.port)
        provider_port = await door("provider", int(made.provider.url.rpartition(":")[2]))
        storage_port = await door("storage", made.storage_ports[0])
        made.provider_url = f"http://127.0.0.1:{provider_port}"
        made.storage_target = (
            _target(made.storage_ports) if storage_port == made.storage_ports[0] else f"127.0.0.1:{storage_port}"
        )
        plain = "sslmode=disable&gssencmode=disable"
        environment = {
            "NANOBATCH_DATABASE_URL": f"{ground.postgres.url(database, database_port)}?{plain}",
            "NANOBATCH_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "NANOBATCH_STORAGE_TARGET": _target(made.storage_ports),
            "NANOBATCH_GENERATOR_TARGET": _generators(made),
            "NANOBATCH_LEASE_SECONDS": str(setup.lease_seconds),
            "NANOBATCH_GENERATOR_CONCURRENCY": str(setup.slots),
            "NANOBATCH_CREDENTIAL_WINDOW": str(setup.slots * setup.generators),
            **packages(ground.tree),
            **setup.environment,
        }
        made.cluster = stack.enter_context(cluster(folder, **environment))
        stack.enter_context(_thawed(made))
        made.storages = [made.start_storage(n) for n in range(setup.storages)]
        await made.serving(made.storage_ports[0])
        made.gateways = [made.start_gateway(n) for n in range(setup.gateways)]
        if not setup.one_name:
            for one in made.generators:
                one.start()
        await made.ready()
        doors = [await door("gateway", made.gateway_ports[0]), *made.gateway_ports[1:]]
        targets = [f"127.0.0.1:{port}" for port in doors]
        fast = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100)]
        for target in targets:
            made._channels.append(await stack.enter_async_context(grpc.aio.insecure_channel(target, options=fast)))
        made.watchers = Watchers(targets, folder / "recordings", random.Random(ground.seed + 1))
        stack.push_async_callback(made.watchers.close)
        try:
            yield made
        except TimeoutError as error:
            made.verdict(ground.report, faults_hit_work=False)
            raise StuckError(str(error)) from error


def _generators(made: Stage) -> str:
    if not made.setup.one_name:
        return _target([one.port for one in made.generators])
    for number, one in enumerate(made.generators, 1):
        one.host, one.port = f"127.0.0.{number}", made.generators[0].port
    return made.names.target("generators.test", made.generators[0].port)


def _target(ports: list[int]) -> str:
    return "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports) if len(ports) > 1 else f"127.0.0.1:{ports[0]}"


def _dropped(postgres: PostgresServer, database: str) -> None:
    with suppress(psycopg.OperationalError):
        postgres.drop(database)


@contextmanager
def _thawed(made: Stage) -> Iterator[None]:
    """Whatever was frozen goes on before it is asked to end."""
    try:
        yield
    finally:
        for process in made.cluster.running:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
