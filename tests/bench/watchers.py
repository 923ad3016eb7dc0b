"""Watchers: how late a committed result reaches those who watch, with the clients in processes of their own.

``python -m bench.watchers TARGET COUNT OUT EXECUTION...`` is such a client: it says ``attached`` when all its
watchers have been told how things stand, reads to the end, and writes what came when to OUT.
"""

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self

import psutil
import uvloop
from http2 import Reader
from processes import ROOT, Cluster, cluster

from nanobatch.gateway.v1 import execution_pb2
from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch_client import Client
from nanobatch_client.errors import NanobatchError

_STREAMS_PER_CONNECTION = 25


async def measure(folder: Path, *, watchers: int, executions: int, prompts: int, rate: int, processes: int) -> None:
    """Run ``rate`` pictures a second in all, watched by ``watchers`` spread over ``executions``, and print the delays."""
    folder = folder / f"watchers-{time.monotonic_ns()}"
    folder.mkdir()
    # Ten calls at a time, so that the sandbox's delay makes the rate.
    with cluster(folder, NANOBATCH_SANDBOX_DELAY=str(10 / rate)) as services, ExitStack() as stack:
        services.storage()
        services.generator("generator", at=services.generator_target)
        gateway = psutil.Process(services.gateway().pid)
        async with Client(services.target) as client:
            ids = [await _paused(client, prompts) for _ in range(executions)]
            before = _cpu(gateway)
            share = watchers // processes
            readers = [
                stack.enter_context(_Reader(services, folder / f"{n}.json", share, ids)) for n in range(processes)
            ]
            await asyncio.gather(*(asyncio.to_thread(reader.attached) for reader in readers))
            attached = _cpu(gateway)
            memory = gateway.memory_info().rss / 2**20
            resumed = time.time()
            for execution_id in ids:
                await client.resume_execution(execution_id)
            seen = [note for reader in readers for note in await asyncio.to_thread(reader.notes)]
            seconds = time.time() - resumed
    live = [(result_id, at) for result_id, at in seen if at > resumed]
    begun = commit_times(folder / "data")
    delays = sorted(at - begun[result_id] for result_id, at in live if result_id)
    expected = watchers // executions * executions * prompts
    p50, p99 = (1000 * delays[int(len(delays) * part)] for part in (0.5, 0.99))
    print(
        f"  {watchers} watchers of {executions} at {rate} pictures a second: commit to event p50 {p50:.0f} ms,", end=" "
    )
    print(
        f"p99 {p99:.0f} ms, n={len(delays)} of {expected}; {prompts * executions / seconds:.1f} pictures a second;",
        end=" ",
    )
    print(f"gateway {1000 * (_cpu_end(readers) - attached) / len(live):.3f} CPU-ms a delivery ({len(live)}),", end=" ")
    print(f"{1000 * (attached - before) / watchers:.1f} CPU-ms to attach, {memory:.0f} MiB")
    if len(delays) != expected:
        raise SystemExit("some watchers were not told of some results")


class _Reader:
    """A client process."""

    def __init__(self, services: Cluster, out: Path, count: int, executions: list[str]) -> None:
        self._gateway = psutil.Process(services.running[-1].pid)
        self._out = out
        words = [services.target, str(count), str(out), *executions]
        command = [sys.executable, "-m", "bench.watchers", *words]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.gateway_cpu = 0.0

    def attached(self) -> None:
        """Wait until all its watchers know how things stand."""
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "attached":
            raise SystemExit("a client process ended early")

    def notes(self) -> list[tuple[str, float]]:
        """Wait for its end, and return what it saw: the result that was completed or empty, and when."""
        if self._process.wait(300):
            raise SystemExit("a client process failed")
        self.gateway_cpu = _cpu(self._gateway)
        return [(result_id, at) for result_id, at in json.loads(self._out.read_text())]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _cpu_end(readers: list[_Reader]) -> float:
    return max(reader.gateway_cpu for reader in readers)


async def _paused(client: Client, prompts: int) -> str:
    while True:
        try:
            execution = await client.create_execution([f"prompt {n}" for n in range(prompts)], model="sandbox")
        except NanobatchError:
            await asyncio.sleep(0.05)
        else:
            await client.pause_execution(execution.id)
            return execution.id


def commit_times(data: Path) -> dict[str, float]:
    """Return when the transaction of each completed result began, by the database."""
    with sqlite3.connect(next(data.glob("*.db"))) as database:
        rows = database.execute("select result_id, end_time from attempts where outcome = 'COMPLETED'").fetchall()
    return {
        str(uuid.UUID(result_id)): datetime.fromisoformat(ended).replace(tzinfo=UTC).timestamp()
        for result_id, ended in rows
    }


async def _client(target: str, count: int, out: Path, executions: list[str]) -> None:
    arrived: list[tuple[float, bytes]] = []
    attached = asyncio.Event()
    waiting: set[tuple[int, int]] = set()

    def note(connection: int, stream: int, message: bytes, at: float) -> None:
        # Only noted as it comes and read afterwards: the client's own work must not make events late.
        arrived.append((at, message))
        if waiting:
            waiting.discard((connection, stream))
            if not waiting:
                attached.set()

    host, _, port = target.rpartition(":")
    readers = []
    for first in range(0, count, _STREAMS_PER_CONNECTION):
        names = [executions[n % len(executions)] for n in range(first, min(count, first + _STREAMS_PER_CONNECTION))]
        calls = [pb.WatchExecutionRequest(execution_id=name).SerializeToString() for name in names]
        waiting |= {(first, 1 + 2 * number) for number in range(len(calls))}
        reader = Reader(calls, partial(note, first))
        await asyncio.get_running_loop().create_connection(lambda reader=reader: reader, host, int(port))
        readers.append(reader)
    await attached.wait()
    await asyncio.sleep(0.5)  # the rest of what was there before
    print("attached", flush=True)
    for reader in readers:
        await reader.ended.wait()
        reader.close()
    notes = []
    for at, message in arrived:
        update = pb.WatchExecutionResponse.FromString(message)
        done = update.result.state == execution_pb2.RESULT_STATE_COMPLETED
        notes.append((update.result.id if done else "", at))
    out.write_text(json.dumps(notes))  # noqa: ASYNC240  # all is over


if __name__ == "__main__":
    uvloop.run(_client(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]))
