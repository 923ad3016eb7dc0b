"""Watchers that write down every message, drop their connection at random and go on from their last revision."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import suppress
from pathlib import Path

import grpc

from nanobatch.gateway.v1 import execution_pb2, execution_service_pb2
from nanobatch.gateway.v1.execution_service_pb2_grpc import ExecutionServiceStub

_AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class Watchers:
    """Owns the tasks; each has a recording of its own, a line of JSON a message."""

    def __init__(self, targets: list[str], folder: Path, source: random.Random) -> None:
        self.folder = folder
        self.drops = self.resumes = 0
        self.slowest_resume = 0.0
        """Seconds from a cut that was not the watcher's own to the next message."""
        self._targets = targets
        self._random = source
        self._tasks: list[asyncio.Task[None]] = []
        folder.mkdir()

    def follow(self, execution_id: str, count: int, *, drop_after: tuple[int, int] = (5, 60)) -> None:
        """Watch an execution ``count`` times; each leaves after so many messages (from, to) and comes back elsewhere."""
        for _ in range(count):
            number = len(self._tasks)
            source = random.Random(self._random.getrandbits(32))
            path = self.folder / f"{execution_id}-{number}.jsonl"
            self._tasks.append(asyncio.create_task(self._watch(execution_id, path, source, drop_after)))

    async def ended(self, within: float) -> None:
        """Wait until all have seen the end. Raises TimeoutError, or what one of them ended with."""
        if not self._tasks:
            return
        done, late = await asyncio.wait(self._tasks, timeout=within)
        for task in done:
            task.result()
        if late:
            raise TimeoutError(
                f"{len(late)} of {len(self._tasks)} watchers were not told of the end within {within:.0f} s"
            )

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError, Exception):
                await task

    async def _watch(self, execution_id: str, path: Path, source: random.Random, drop_after: tuple[int, int]) -> None:
        last, turn, cut_at = 0, source.randrange(len(self._targets)), 0.0
        with path.open("w") as out:
            while True:
                request = execution_service_pb2.WatchExecutionRequest(execution_id=execution_id, after_revision=last)
                messages_left = source.randint(*drop_after)
                out.write(json.dumps({"resume": last, "at": time.monotonic()}) + "\n")
                async with grpc.aio.insecure_channel(self._targets[turn % len(self._targets)]) as channel:
                    call = ExecutionServiceStub(channel).WatchExecution(request)
                    try:
                        async for message in call:
                            if cut_at:
                                self.slowest_resume = max(self.slowest_resume, time.monotonic() - cut_at)
                                cut_at = 0.0
                            out.write(_line(message) + "\n")
                            last = max(last, message.revision)
                            messages_left -= 1
                            if messages_left <= 0:
                                self.drops += 1
                                break
                        else:
                            return
                    except grpc.aio.AioRpcError as error:
                        if error.code() not in _AGAIN:
                            raise RuntimeError(
                                f"a watcher was refused: {error.code().name} {error.details()}"
                            ) from None
                        out.write(
                            json.dumps({"cut": error.code().name, "detail": error.details(), "at": time.monotonic()})
                            + "\n"
                        )
                        cut_at = cut_at or time.monotonic()
                        await asyncio.sleep(source.uniform(0.05, 0.3))
                    finally:
                        call.cancel()
                self.resumes += 1
                turn += 1
            out.flush()


def _line(message: execution_service_pb2.WatchExecutionResponse) -> str:
    stats = message.stats
    facts: dict[str, object] = {
        "at": time.monotonic(),
        "revision": message.revision,
        "stats": [stats.total, stats.pending, stats.processing, stats.completed, stats.failed, stats.cancelled],
    }
    kind = facts["kind"] = message.WhichOneof("update")
    if kind == "result":
        facts["result"] = message.result.id
        facts["state"] = execution_pb2.ResultState.Name(message.result.state).removeprefix("RESULT_STATE_")
    elif kind == "execution":
        facts["state"] = execution_pb2.ExecutionState.Name(message.execution.state).removeprefix("EXECUTION_STATE_")
    return json.dumps(facts)
