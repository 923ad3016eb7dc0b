"""Run the benchmarks: ``make bench ARGS="[--only NAME] [--rounds N]"``. Figures are medians over rounds."""

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
from processes import ROOT, Product, product, upstream

from bench import lease_queue, watchers
from bench.hidden_quota import bench_hidden_quota
from bench.page import bench_page
from bench.rows import bench_rows
from bench.schedule import makespan, most_at_once
from bench.services import bench_prod, bench_services
from bench.watchers import commit_times
from nanobatch.gateway.v1 import execution_pb2
from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch.gateway.v1.execution_service_pb2_grpc import ExecutionServiceStub
from nanobatch_client import Client
from nanobatch_client.errors import NanobatchError

MODEL = "gemini-2.5-flash-image"


async def up(running: Product) -> Client:
    """Return a connected client once the product accepts requests."""
    client = Client(running.target)
    await client.__aenter__()
    while True:
        try:
            await client.create_execution(["a warm-up"], model="sandbox")
        except NanobatchError:
            await asyncio.sleep(0.02)
        else:
            return client


async def run_to_end(client: Client, prompts: list[str], **options: object) -> float:
    """Create an execution, watch it to its end, and return the seconds from the call to the final state."""
    started = time.monotonic()
    execution = await client.create_execution(prompts, **options)  # type: ignore[arg-type]  # as in the SDK
    async for _ in client.watch(execution.id):
        pass
    seconds = time.monotonic() - started
    done = await client.get_execution(execution.id)
    if done.stats.completed != len(prompts):
        raise SystemExit(f"only {done.stats.completed} of {len(prompts)} were made: {done.state}")
    return seconds


async def bench_makespan(folder: Path, rounds: int) -> None:
    """100 prompts, lognormal latencies (median 0.5 s, sigma 0.5), 10 in flight: against the ideal schedule."""
    ratios = []
    for seed in range(1, rounds + 1):
        with (
            upstream(folder, picture_bytes=500_000, latency="lognormal:0.5:0.5", seed=seed) as fake,
            product(folder, upstream_url=fake.url) as running,
        ):
            client = await up(running)
            await run_to_end(client, ["warm the key"], model=MODEL, api_key="bench-key")
            skip = len(fake.calls())
            seconds = await run_to_end(
                client, [f"prompt number {n}" for n in range(100)], model=MODEL, api_key="bench-key"
            )
            await client.__aexit__(None, None, None)
            calls = fake.calls()[skip:]
            slots = max(10, most_at_once(calls))  # the window may have grown meanwhile: then so has the ideal
            ideal = makespan([call["latency"] for call in calls], slots)
            ratios.append(seconds / ideal)
            print(f"  seed {seed}: {seconds:.2f} s, ideal {ideal:.2f} s on {slots}, ratio {ratios[-1]:.3f}")
    report("makespan against the ideal schedule (100 prompts, 10 in flight)", ratios, 1.05)


async def bench_cpu(folder: Path, rounds: int) -> None:
    """A zero-latency upstream: pictures a second and CPU a picture against a bare script."""
    for size in (500_000, 1_500_000):
        ratios, ours, theirs, speed, script_speed = [], [], [], [], []
        for _ in range(rounds):
            with upstream(folder, picture_bytes=size) as fake:
                script = bare_script(folder, fake.url)
                with product(folder, upstream_url=fake.url) as running:
                    client = await up(running)
                    await run_to_end(client, ["warm"] * 20, model=MODEL, api_key="bench-key")
                    before = running.cpu_seconds()
                    execution = await client.create_execution(
                        [f"prompt number {n}" for n in range(100)], model=MODEL, api_key="bench-key"
                    )
                    # A look costs less than a watch; when it ended stands in the execution, however late it is looked for.
                    while not (done := await client.get_execution(execution.id)).end_time:  # noqa: ASYNC110
                        await asyncio.sleep(1)
                    seconds = (done.end_time - done.create_time).total_seconds()
                    cpu = (running.cpu_seconds() - before) * 10
                    await client.__aexit__(None, None, None)
            ours.append(cpu)
            theirs.append(script["cpu"] * 10)
            speed.append(100 / seconds)
            script_speed.append(100 / script["seconds"])
            ratios.append(ours[-1] / theirs[-1])
        m = statistics.median
        print(f"  {size // 1000} KB: {m(ours):.1f} CPU-ms a picture, script {m(theirs):.1f};", end=" ")
        print(f"{m(speed):.1f} pictures a second, script {m(script_speed):.1f}")
        report(f"CPU a picture against the bare script ({size // 1000} KB)", ratios, 1.5)


def bare_script(folder: Path, url: str) -> dict[str, float]:
    """Run the yardstick in a process of its own."""
    out = folder / "bare"
    out.mkdir(exist_ok=True)
    command = [sys.executable, ROOT / "tests/bench/bare_script.py", "--url", url, "--folder", out]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    shutil.rmtree(out)
    return dict(json.loads(answer.stdout))


async def bench_events(folder: Path, rounds: int) -> None:
    """From a result's commit to a watcher's event, 20 watchers, 10 pictures a second: from the transaction's begin."""
    delays: list[float] = []
    for _ in range(rounds):
        with product(folder, environment={"NANOBATCH_SANDBOX_DELAY": "1"}) as running:
            client = await up(running)
            execution = await client.create_execution([f"prompt {n}" for n in range(100)], model="sandbox")
            await client.pause_execution(execution.id)
            events: list[tuple[str, float]] = []
            attached = [asyncio.Event() for _ in range(20)]
            async with asyncio.TaskGroup() as tasks:
                for event in attached:
                    tasks.create_task(note_completions(running.target, execution.id, event, events))
                for event in attached:
                    await event.wait()
                resumed = time.time()
                await client.resume_execution(execution.id)
            await client.__aexit__(None, None, None)
            begun = commit_times(running.data)
            delays += [at - begun[result_id] for result_id, at in events if begun[result_id] > resumed]
    delays.sort()
    p50, p99 = delays[len(delays) // 2] * 1000, delays[int(len(delays) * 0.99)] * 1000
    print(f"commit to event, 20 watchers: p50 {p50:.1f} ms, p99 {p99:.1f} ms, n={len(delays)} (goal: p99 under 50 ms)")


async def note_completions(
    target: str, execution_id: str, attached: asyncio.Event, events: list[tuple[str, float]]
) -> None:
    """Watch with the bare stub, and note when each completed result is seen."""
    async with grpc.aio.insecure_channel(target) as channel:
        request = pb.WatchExecutionRequest(execution_id=execution_id)
        seen = 0
        async for update in ExecutionServiceStub(channel).WatchExecution(request):
            seen += 1
            if seen > 100:  # the execution and its results as they were: from here on it is live
                attached.set()
            if update.result.state == execution_pb2.RESULT_STATE_COMPLETED:
                events.append((update.result.id, time.time()))


async def bench_watchers(folder: Path, rounds: int) -> None:
    """From a result's commit to watchers in other processes: 20 of one run at 10 and 33 a second, 1,000 of ten runs."""
    for _ in range(rounds):
        await watchers.measure(folder, watchers=20, executions=1, prompts=60, rate=10, processes=1)
        await watchers.measure(folder, watchers=20, executions=1, prompts=100, rate=33, processes=1)
        await watchers.measure(folder, watchers=1000, executions=10, prompts=20, rate=10, processes=2)


async def bench_start(folder: Path, rounds: int) -> None:
    """From ``nanobatch up`` to the first accepted request."""
    times = []
    for _ in range(rounds):
        with product(folder) as running:
            client = await up(running)
            times.append(time.monotonic() - running.started)
            await client.__aexit__(None, None, None)
    report("seconds from `nanobatch up` to the first accepted request", times, 5.0)


async def bench_memory(folder: Path, rounds: int) -> None:
    """Peak memory of the process during 100 x 500 KB at 10 in flight; its decode children apart."""
    peaks, children = [], []
    for _ in range(rounds):
        with upstream(folder, picture_bytes=500_000) as fake, product(folder, upstream_url=fake.url) as running:
            client = await up(running)
            await run_to_end(client, [f"prompt {n}" for n in range(100)], model=MODEL, api_key="bench-key")
            await client.__aexit__(None, None, None)
            peaks.append(running.peak_mib())
            children.append(running.children_mib())
    print(f"  decode children: {statistics.median(children):.0f} MiB together")
    report("peak MiB of the embedded process (100 x 500 KB, 10 in flight)", peaks, 300.0)


def report(name: str, figures: list[float], goal: float) -> None:
    """Print the median with its goal."""
    median = statistics.median(figures)
    print(f"{name}: {median:.2f} (goal: at most {goal:g}) {'ok' if median <= goal else 'MISSED'}, n={len(figures)}")


BENCHES = {
    "start": bench_start,
    "makespan": bench_makespan,
    "cpu": bench_cpu,
    "events": bench_events,
    "watchers": bench_watchers,
    "memory": bench_memory,
    "lease": lease_queue.bench_lease,
    "queue": lease_queue.bench_queue,
    "scaling": lease_queue.bench_scaling,
    "flood": lease_queue.bench_flood,
    "hidden-quota": bench_hidden_quota,
    "page": bench_page,
    "services": bench_services,
    "services-in-prod": bench_prod,
    "rows": bench_rows,
}


async def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...")
    parser.add_argument("--only", choices=BENCHES)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nanobatch-bench-") as folder:
        for name, bench in BENCHES.items():
            if arguments.only in {None, name}:
                print(f"{name}: {bench.__doc__}")
                await bench(Path(folder), arguments.rounds)


if __name__ == "__main__":
    asyncio.run(main())
