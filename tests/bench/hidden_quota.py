"""300 prompts against a quota that nobody is told: how near to its bound, and how many calls it costs to find out."""

import asyncio
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from fakes.gemini_quota import read_quota
from postgres_server import private_postgres
from processes import cluster, upstream

from nanobatch_client import Client
from nanobatch_client.errors import NanobatchError

MODEL, KEY = "gemini-2.5-flash-image", "the-limited-key"
PROMPTS, IN_FLIGHT, LATENCY = 300, 50, (0.5, 1.0)
BUCKET, WINDOW = "bucket:10:50", "window:100:10"
GOALS = {BUCKET: 1.10, WINDOW: 1.20}
MOST_REFUSED = 0.03


@dataclass(frozen=True)
class Run:
    """What one run came to."""

    seconds: float
    bound: float
    calls: int
    refused: int
    failed: int

    @property
    def ratio(self) -> float:
        """Of the time taken to the quota's own bound."""
        return self.seconds / self.bound

    @property
    def share(self) -> float:
        """Of the calls, those answered 429."""
        return self.refused / self.calls


async def run_once(folder: Path, spec: str, generators: int, seed: int, *, hint: bool) -> Run:
    """Run the 300 prompts on new processes and a new database; the quota's phase comes from the seed."""
    offset = random.Random(seed).uniform(0, 10)
    told = f"{spec}:{offset}" if spec.startswith("window") else spec
    latency = f"uniform:{LATENCY[0]}:{LATENCY[1]}"
    more = ["--quota", told, "--quota-of", KEY, *([] if hint else ["--no-hint"])]
    with (
        private_postgres() as server,
        upstream(folder, picture_bytes=20_000, latency=latency, seed=seed, more=more) as fake,
        cluster(
            folder,
            NANOBATCH_DATABASE_URL=server.url(server.create()),
            NANOBATCH_GENERATOR_CONCURRENCY=str(-(-IN_FLIGHT // generators)),
            NANOBATCH_CREDENTIAL_WINDOW=str(IN_FLIGHT),
        ) as services,
    ):
        services.storage(), services.gateway()
        for number in range(generators):
            at = services.generator_target if number == 0 else "127.0.0.1:0"
            services.generator(f"generator-{number}", fake.url, at=at)
        async with Client(services.target) as client:
            await warm(client, generators)
            skip = len(fake.calls())
            if spec.startswith("window"):  # begin at the seed's place in the window, wherever its boundaries lie
                await asyncio.sleep((2 * offset - time.monotonic()) % 10)
            started = time.monotonic()
            executions = [
                await client.create_execution([f"prompt {part}-{n}" for n in range(100)], model=MODEL, api_key=KEY)
                for part in range(PROMPTS // 100)
            ]
            await asyncio.gather(*(ended(client, execution.id) for execution in executions))
            seconds = time.monotonic() - started
            stats = [(await client.get_execution(execution.id)).stats for execution in executions]
        calls = [call for call in fake.calls()[skip:] if KEY.startswith(call["key"])]
    bound = read_quota(told).earliest(PROMPTS, started) - started + statistics.mean(LATENCY)
    refused = sum(call["status"] == 429 for call in calls)
    return Run(seconds, bound, len(calls), refused, PROMPTS - sum(stat.completed for stat in stats))


async def warm(client: Client, generators: int) -> None:
    """Have every process loaded before the clock runs, with a key of another bucket."""
    while True:
        try:
            execution = await client.create_execution(
                ["warm"] * min(100, 25 * generators), model=MODEL, api_key="another-key"
            )
        except NanobatchError:
            await asyncio.sleep(0.1)
        else:
            return await ended(client, execution.id)


async def ended(client: Client, execution_id: str) -> None:
    """Wait for the end of an execution."""
    async for _ in client.watch(execution_id):
        pass


async def bench_hidden_quota(folder: Path, rounds: int) -> None:
    """300 prompts in 3 runs, 50 in flight, 0.5 to 1 s a picture; two quotas that nobody is told; 1 and 4 generators."""
    for spec, name in ((BUCKET, "600 a minute, burst 50"), (WINDOW, "100 per fixed 10 s window")):
        for generators in (1, 4):
            runs = []
            for seed in range(1, rounds + 1):
                place = folder / f"{spec.partition(':')[0]}-{generators}-{seed}"
                place.mkdir()
                run = await run_once(place, spec, generators, seed, hint=True)
                runs.append(run)
                print(
                    f"  seed {seed}: {run.seconds:.2f} s, bound {run.bound:.2f} s, ratio {run.ratio:.3f};"
                    f" {run.refused} of {run.calls} calls refused, {run.failed} prompts failed",
                    flush=True,
                )
            ratio = statistics.median(run.ratio for run in runs)
            share = statistics.median(run.share for run in runs)
            met = ratio <= GOALS[spec] and share <= MOST_REFUSED and not any(run.failed for run in runs)
            print(
                f"{'ok  ' if met else 'MISS'} hidden quota, {name}, {generators} generator(s), n = {PROMPTS} x {rounds}:"
                f" {ratio:.3f} of its bound (goal {GOALS[spec]:.2f}), {share:.1%} refused (goal {MOST_REFUSED:.0%})",
                flush=True,
            )
