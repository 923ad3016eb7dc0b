"""Watchers that are cut thousands of times, while gateways and generators come and go, miss nothing and hear nothing twice.

``PYTHONPATH=tests python -m disconnects --seed 1 --count 10000`` does it at length, in parts: it says how to go on where it
was stopped, by ``--minutes 15`` for example. ``tests/system/test_watchers.py`` does it in short. Storage, two generators and
two gateways run in this process, over TCP, so that a run can be short and its watchers many.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import socket
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

import nanobatch_gateway.wiring
import nanobatch_generator.wiring
import nanobatch_storage.wiring
from nanobatch.gateway.v1 import execution_pb2
from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch.gateway.v1.execution_service_pb2_grpc import ExecutionServiceStub
from nanobatch_client import Client
from nanobatch_gateway.settings import GatewaySettings
from nanobatch_generator.pictures import CheckedPictures
from nanobatch_generator.settings import GeneratorSettings
from nanobatch_runtime import logs
from nanobatch_runtime.bus import MemoryBus
from nanobatch_runtime.lifecycle import cancel
from nanobatch_runtime.pictures import PictureChecker
from nanobatch_runtime.settings import load
from nanobatch_storage.settings import StorageSettings

KEY = "0123456789abcdef" * 4
WATCHERS = 12
FINAL = {
    execution_pb2.RESULT_STATE_COMPLETED,
    execution_pb2.RESULT_STATE_FAILED,
    execution_pb2.RESULT_STATE_CANCELLED,
}


_GONE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN}
"""What a server that goes, or a connection that breaks, looks like."""


@dataclass
class Outcome:
    """What happened; the checks have passed where there is one."""

    seed: int
    disconnects: int = 0
    """Streams that ended before the run had: cut by the watcher, or by a server that went."""
    switches: Counter[str] = field(default_factory=Counter)
    """Restarts of generators and gateways, by what was restarted."""
    updates: int = 0
    executions: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        """One line."""
        switches = ", ".join(f"{count} x {name}" for name, count in sorted(self.switches.items()))
        return (
            f"seed {self.seed}: {self.disconnects} disconnects, {switches}; {self.updates} updates of "
            f"{self.executions} executions to {WATCHERS} watchers each: no gap, no repeat, {self.seconds:.0f} s"
        )


class _Watcher:
    """Follows one execution at any gateway, cut after a few updates, and checks what it is told."""

    def __init__(self, dice: random.Random, execution_id: str, targets: list[str], outcome: Outcome) -> None:
        self.rows: dict[str, int] = {}
        self.finals: Counter[str] = Counter()
        self._dice = dice
        self._execution_id = execution_id
        self._targets = targets
        self._outcome = outcome
        self._revision = 0

    async def follow(self) -> None:
        async with AsyncExitStack() as stack:
            stubs: list[Any] = [
                ExecutionServiceStub(await stack.enter_async_context(grpc.aio.insecure_channel(target)))
                for target in self._targets
            ]
            while not await self._once(self._dice.choice(stubs), self._dice.randint(1, 4)):
                self._outcome.disconnects += 1

    async def _once(self, stub: Any, left: int) -> bool:
        """Read ``left`` updates, and say whether the stream had ended by itself."""
        request = pb.WatchExecutionRequest(execution_id=self._execution_id, after_revision=self._revision)
        call = stub.WatchExecution(request, timeout=60)
        try:
            async for update in call:
                assert update.HasField("stats")
                if not update.revision:
                    continue
                assert update.revision > self._revision, f"{update.revision} after {self._revision}"
                self._revision = update.revision
                self._outcome.updates += 1
                self.rows[update.result.id] = update.revision
                if update.result.state in FINAL:
                    self.finals[update.result.id] += 1
                left -= 1
                if not left:
                    return False
        except grpc.aio.AioRpcError as error:
            if error.code() not in _GONE:
                raise AssertionError(f"a watch ended with {error}") from None
            await asyncio.sleep(0.01)  # what a client does before it tries again
            return False
        finally:
            call.cancel()
        return True


class _House:
    """The services; generators and gateways can be restarted."""

    def __init__(self, folder: Path, calm: float) -> None:
        self._folder = folder
        self._calm = calm
        self._stacks: dict[str, AsyncExitStack] = {}
        self._open: dict[str, Callable[[], AbstractAsyncContextManager[Any]]] = {}
        self.gateways: list[str] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[_House]:
        async with AsyncExitStack() as stack:
            common: dict[str, Any] = {"data_dir": self._folder, "log_level": "error"}
            storage = await stack.enter_async_context(
                nanobatch_storage.wiring.open_app(
                    load(StorageSettings, listen="127.0.0.1:0", credential_window=WATCHERS, **common), bus=MemoryBus()
                )
            )
            pictures = CheckedPictures(await stack.enter_async_context(PictureChecker(max_workers=1)))
            stack.push_async_callback(self._stop_all)
            generators = [_free_address() for _ in range(2)]
            for number, address in enumerate(generators):
                settings = load(
                    GeneratorSettings,
                    listen=address,
                    storage_target=storage.address,
                    encryption_key=KEY,
                    sandbox_delay=0.05,
                    **{**common, "data_dir": self._folder / f"generator-{number}"},
                )
                self._open[f"generator {number}"] = lambda settings=settings: nanobatch_generator.wiring.open_app(
                    settings, pictures=pictures
                )
            self.gateways = [_free_address() for _ in range(2)]
            for number, address in enumerate(self.gateways):
                gateway = load(
                    GatewaySettings,
                    listen=address,
                    http="off",
                    storage_target=storage.address,
                    generator_target="ipv4:" + ",".join(generators),
                    encryption_key=KEY,
                    log_level="error",
                )
                self._open[f"gateway {number}"] = lambda gateway=gateway: nanobatch_gateway.wiring.open_app(gateway)
            for name in self._open:
                await self.start(name)
            yield self

    async def start(self, name: str) -> None:
        self._stacks[name] = AsyncExitStack()
        await self._stacks[name].enter_async_context(self._open[name]())

    async def stop(self, name: str) -> None:
        await self._stacks.pop(name).aclose()

    async def _stop_all(self) -> None:
        for name in reversed(list(self._stacks)):
            await self.stop(name)

    async def restart_at_random(self, dice: random.Random, switches: Counter[str]) -> None:
        """Restart one thing after the other, sometimes both generators at once: then storage is what is watched."""
        while True:
            await asyncio.sleep(dice.uniform(0, self._calm))
            generators = [name for name in self._open if name.startswith("generator")]
            names = generators if dice.random() < 0.3 else [dice.choice([*self._open, *generators, *generators])]
            stopping = asyncio.create_task(self._restart(names, dice.uniform(0.05, 0.4)))
            try:
                await asyncio.shield(stopping)  # half a restart would leave a service away
            except asyncio.CancelledError:
                await stopping
                raise
            switches["both generators" if len(names) > 1 else names[0].split()[0]] += 1

    async def _restart(self, names: list[str], pause: float) -> None:
        for name in names:
            await self.stop(name)
        await asyncio.sleep(pause)
        for name in names:
            await self.start(name)


async def disconnects(folder: Path, *, seed: int, count: int, prompts: int = 60, calm: float = 2) -> Outcome:
    """Cut watchers at least ``count`` times, over executions of so many ``prompts``.

    Restarts follow each other within ``calm`` seconds.

    Raises AssertionError with the seed where one missed or repeated something."""
    dice, outcome, began = random.Random(seed), Outcome(seed), time.monotonic()
    async with _House(folder, calm).running() as house:
        while outcome.disconnects < count:
            try:
                await _one_execution(house, dice, outcome, prompts)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, after {outcome.disconnects} disconnects: {error}") from error
            outcome.executions += 1
    outcome.seconds = time.monotonic() - began
    return outcome


async def _one_execution(house: _House, dice: random.Random, outcome: Outcome, prompts: int) -> None:
    async with Client("ipv4:" + ",".join(house.gateways)) as client:
        execution = await client.create_execution([f"prompt {n}" for n in range(prompts)], model="sandbox")
        watchers = [
            _Watcher(random.Random(dice.random()), execution.id, house.gateways, outcome) for _ in range(WATCHERS)
        ]
        restarting = asyncio.create_task(house.restart_at_random(random.Random(dice.random()), outcome.switches))
        try:
            async with asyncio.timeout(600), asyncio.TaskGroup() as tasks:
                for watcher in watchers:
                    tasks.create_task(watcher.follow())
        except* AssertionError as group:
            raise group.exceptions[0] from None
        finally:
            await cancel(restarting)
        replay = [update async for update in client.watch(execution.id)]
        done = await client.get_execution(execution.id)
    assert done.stats.completed == prompts, done.stats
    snapshot = {getattr(getattr(one, "result", None), "id", ""): one.revision for one in replay if one.revision}
    assert len(snapshot) == prompts + 1
    for watcher in watchers:
        assert watcher.rows == snapshot, "the newest states heard are not those of a replay"
        assert set(watcher.finals.values()) == {1}, watcher.finals.most_common(3)
        assert len(watcher.finals) == prompts


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def main() -> None:
    """Run it at length, in parts of a seed each, so that it can be stopped after any of them and gone on with later."""
    parser = argparse.ArgumentParser(prog="python -m disconnects")
    parser.add_argument("--seed", type=int, default=1, help="of the first part; each part has the next one")
    parser.add_argument("--count", type=int, default=10_000, help="disconnects in all")
    parser.add_argument("--part", type=int, default=500, help="disconnects of a part")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no part after so many minutes")
    arguments = parser.parse_args()
    logs.configure("error")  # three services that tell of each call on one terminal are half of the work
    with suppress(KeyboardInterrupt):
        asyncio.run(_in_parts(arguments))


async def _in_parts(arguments: argparse.Namespace) -> None:
    seed, left, until = arguments.seed, arguments.count, time.monotonic() + 60 * arguments.minutes
    while left > 0 and time.monotonic() < until:
        with tempfile.TemporaryDirectory(prefix="nanobatch-disconnects-") as folder:
            outcome = await disconnects(Path(folder), seed=seed, count=min(left, arguments.part))
        seed, left = seed + 1, left - outcome.disconnects
        print(f"{outcome}; {max(left, 0)} left" + (f" from --seed {seed}" if left > 0 else ""), flush=True)


if __name__ == "__main__":
    main()
