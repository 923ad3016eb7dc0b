"""Scenario 27: a flood of one user and the single prompts of another, then many users at once, one of them slow."""

from __future__ import annotations

import asyncio
import math
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from nanobatch_client import Client
from soak.report import Report
from soak.stage import KEY, MODEL, Ground, Setup, Stage, stage

_FAIR = 0.95
"""Jain's index, at least: 1 where all are served alike, 1/n where one has everything."""
_SOON = 1.0
"""R14: seconds after a slot frees."""


async def flood(ground: Ground, *, backlog: int = 100, singles: int = 20, users: int = 50, results: int = 12) -> Report:
    """``backlog`` executions of a hundred wait; ``singles`` prompts of another user come. Then everybody comes at once."""
    report = ground.report
    admin, service = secrets.token_hex(32), secrets.token_hex(32)
    doors = {
        "NANOBATCH_AUTH": "token",
        "NANOBATCH_ADMIN_TOKEN": admin,
        "NANOBATCH_SERVICE_TOKEN": service,
        "NANOBATCH_LIMIT_SPEND": "0",
    }
    setup = Setup(generators=2, slots=6, watchers=0, latency="uniform:1:2", environment=doors)
    async with stage(ground, setup) as on:
        slots = setup.generators * setup.slots
        async with _client(on, admin) as operator:
            await _singles(on, operator, report, backlog, singles, slots)
            await _crowd(on, operator, report, users, results, slots)
        await on.when(lambda: on.rows("select count(*) from executions where end_time is null") == [(0,)], within=300)
        on.verdict(report, extra_calls_allowed=False)
        report.none_of(singles, "single prompts behind a flood")
    return report


async def _singles(on: Stage, operator: Client, report: Report, backlog: int, singles: int, slots: int) -> None:
    async with _user(on, operator) as flooding, _user(on, operator) as small:
        lists = [await _create(on, flooding, 100) for _ in range(backlog)]
        await on.when(lambda: sum(on.provider.out().values()) > slots * 0.8)
        overtaken, waited = [], []
        for _ in range(singles):
            await asyncio.sleep(on.random.uniform(0, 0.3))
            single = await _create(on, small, 1)
            asked = on.note("single")["at"]
            await _completed(on, [single])
            ((own,), others) = on.calls_of([single]), on.provider.calls()
            overtaken.append(sum(asked < call["arrived"] < own["arrived"] for call in others))
            freed = min(call["ended"] for call in others if call["ended"] > asked)
            waited.append(max(0.0, own["arrived"] - freed))
        ((waiting,),) = on.rows("select sum(pending) from executions")
        for one in lists:
            await flooding.client.cancel_execution(one)
    # What stands by is leased before its call: half as many as there are slots.
    report.hold(
        f"behind {waiting} prompts of another user at most {max(overtaken)} calls came before a single one, {slots} slots",
        kept=max(overtaken) <= slots and waiting > 0,
    )
    report.timely(f"a single prompt starts {max(waited):.2f} s after a slot frees at most", kept=max(waited) <= _SOON)


async def _crowd(on: Stage, operator: Client, report: Report, users: int, results: int, slots: int) -> None:
    """Have as many users come at once, and one whose pictures take ten times as long."""
    await on.when(lambda: not any(on.provider.out().values()))
    for one in on.generators:
        one.process.send_signal(signal.SIGSTOP)  # nobody is served before all have come
    equal, began = [], on.note("crowd")["at"]
    try:
        async with _user(on, operator) as slow:
            stuck = await _create(on, slow, results, words="{{latency:6}} a boat")
        for _ in range(users):
            async with _user(on, operator) as user:
                equal.append(await _create(on, user, results))
    finally:
        for one in on.generators:
            one.process.send_signal(signal.SIGCONT)
    await _completed(on, [*equal, stuck])
    served = [sorted(call["arrived"] for call in on.calls_of([one])) for one in equal]
    until = min(calls[-1] for calls in served)  # from here on somebody has nothing left to ask for
    counts = [sum(at <= until for at in calls) for calls in served]
    index = sum(counts) ** 2 / (len(counts) * sum(count * count for count in counts))
    report.hold(
        f"{users} users at once are served alike: Jain {index:.3f}, {min(counts)} to {max(counts)}", kept=index >= _FAIR
    )
    held = _most_at_once([call for call in on.calls_of([stuck]) if call["arrived"] <= until])
    share = 1 + math.ceil(slots / (users + 1))
    report.hold(f"the slow one holds {held} of {slots} slots at most, {share} are a fair share", kept=held <= share)
    first = max(calls[0] for calls in served) - began
    report.say(f"note   the last of {users} users was first served {first:.1f} s after the first had come")


def _most_at_once(calls: list[dict[str, Any]]) -> int:
    return max(sum(one["arrived"] <= call["arrived"] < one["ended"] for one in calls) for call in calls)


@dataclass(frozen=True)
class User:
    """Somebody with a connection and a provider key of their own."""

    client: Client
    key: str


@asynccontextmanager
async def _client(on: Stage, token: str) -> AsyncIterator[Client]:
    async with Client(f"127.0.0.1:{on.gateway_ports[0]}", token=token) as client:
        yield client


@asynccontextmanager
async def _user(on: Stage, operator: Client) -> AsyncIterator[User]:
    """Make a user and connect them."""
    made = await operator.create_user(f"user {secrets.token_hex(4)}")
    token = await operator.create_token("soak", user_id=made.id)
    async with _client(on, token.secret) as client:
        yield User(client, f"{KEY}-{made.id}")


async def _create(on: Stage, user: User, count: int, words: str = "a boat") -> str:
    number = len(on.executions)
    prompts = [f"[{number}-{n}] {words}" for n in range(count)]
    execution = await user.client.create_execution(prompts, model=MODEL, api_key=user.key)
    on.executions.append(execution.id)
    return execution.id


async def _completed(on: Stage, executions: list[str]) -> None:
    names = ",".join(executions)
    done = f"select count(*) from executions where id = any('{{{names}}}') and state = 'COMPLETED'"
    await on.when(lambda: on.rows(done) == [(len(executions),)], within=300)
