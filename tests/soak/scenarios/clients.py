"""Scenarios 13, 15 and 29: watchers cut anywhere, storms of control, the same creation many times."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from typing import Any

import grpc

from nanobatch.gateway.v1 import execution_pb2
from nanobatch.gateway.v1 import execution_service_pb2 as pb
from soak.report import Report
from soak.stage import KEY, MODEL, Ground, Setup, Stage, stage

_CANCEL_SECONDS = 2.0


async def no_gap(ground: Ground, *, executions: int = 4, results: int = 100, watchers: int = 20) -> Report:
    """Watchers cut every few messages, also in the middle of a bulk lease and a bulk cancel, at two gateways in turn."""
    report = ground.report
    setup = Setup(slots=12, storages=2, latency="uniform:0.02:0.3", watchers=0)
    async with stage(ground, setup) as on:
        for number in range(executions):
            execution = await on.create(results)
            on.watchers.follow(execution, watchers // 2, drop_after=(1, 6))
            on.watchers.follow(execution, watchers - watchers // 2, drop_after=(3, 40))
            if number % 2:  # cancelled in the middle: nearly as many rows change at once
                at = on.random.randint(results // 10, results * 6 // 10)
                await on.when(lambda at=at, execution=execution: _done(on, execution) >= at)
                await on.call("CancelExecution", pb.CancelExecutionRequest(execution_id=execution))
        await on.ended(within=180)
        refusals = {}
        for name, revision in (("future", 10_000_000), ("negative", -1)):
            refusals[name] = await _refusal(on, on.executions[0], revision)
        snapshot = await _replayed(on, on.executions[0])
        rows = dict(on.rows(f"select id::text, state from results where execution_id = '{on.executions[0]}'"))
        on.verdict(report, extra_calls_allowed=False)
        report.hold("a replay from 0 is the snapshot", kept=snapshot == rows)
        report.hold(
            f"a revision of the future is refused: {refusals['future']}", kept="REVISION_UNKNOWN" in refusals["future"]
        )
        report.hold(
            f"a negative one is refused: {refusals['negative']}",
            kept=refusals["negative"].startswith("INVALID_ARGUMENT"),
        )
        report.none_of(on.watchers.resumes, "resumes of a watcher")
    return report


def _done(on: Stage, execution: str) -> int:
    return int(on.rows(f"select completed from executions where id = '{execution}'")[0][0])


async def _refusal(on: Stage, execution: str, revision: int) -> str:
    try:
        async for _ in on.stub().WatchExecution(
            pb.WatchExecutionRequest(execution_id=execution, after_revision=revision)
        ):
            return "not refused"
    except grpc.aio.AioRpcError as error:
        trailing = str(dict(error.trailing_metadata() or ()))
        return f"{error.code().name} {'REVISION_UNKNOWN' if 'REVISION_UNKNOWN' in trailing else ''}"
    return "ended"


async def _replayed(on: Stage, execution: str) -> dict[str, str]:
    states = {}
    async for message in on.stub().WatchExecution(pb.WatchExecutionRequest(execution_id=execution)):
        if message.HasField("result"):
            state = execution_pb2.ResultState.Name(message.result.state)
            states[message.result.id] = state.removeprefix("RESULT_STATE_")
    return states


async def storms(ground: Ground, *, executions: int = 20, results: int = 10, rounds: int = 5) -> Report:
    """Pause, resume, cancel and retry in a loop with work in flight: no deadlock is seen, no call starts late."""
    report = ground.report
    async with stage(ground, Setup(latency="uniform:0.05:0.3", watchers=1)) as on:
        deadlocks = ground.postgres.log().count("deadlock detected")
        ids = [await on.create(results) for _ in range(executions)]
        storm = Storm(on, rounds)
        await asyncio.gather(*(storm.over(execution) for execution in ids))
        await on.ended(within=120)
        calls = on.provider.calls()
        late = [
            call["arrived"] - storm.cancelled[number]
            for number, execution in enumerate(ids)
            if number in storm.cancelled
            for call in calls
            if call["prompt"].startswith(f"[{number}-") and call["arrived"] > storm.cancelled[number]
        ]
        seen = ground.postgres.log().count("deadlock detected") - deadlocks
        # A watch ends with its execution: what a retry made of it later, nobody told that watcher.
        on.verdict(report, retried=True, watchers_complete=False, failures_allowed=0)
        report.hold(
            f"{len(storm.cancelled)} cancels: {len(late)} calls arrived after, the last {max(late, default=0):.2f} s after",
            kept=max(late, default=0.0) <= _CANCEL_SECONDS,
        )
        report.hold(
            f"{storm.made} control calls, refused otherwise than by state: {storm.refused[:3]}", kept=not storm.refused
        )
        report.hold(f"{seen} deadlocks in the server's log", kept=seen == 0)
        report.none_of(storm.made, "control calls")
    return report


class Storm:
    """Control calls on one execution after another, as fast as they are answered; every second one is cancelled at last."""

    def __init__(self, on: Stage, rounds: int) -> None:
        self._on, self._rounds = on, rounds
        self.cancelled: dict[int, float] = {}
        """When the cancel of the n-th execution was answered."""
        self.refused: list[str] = []
        self.made = 0

    async def over(self, execution: str) -> None:
        number = self._on.executions.index(execution)
        ids = [row[0] for row in self._on.rows(f"select id::text from results where execution_id = '{execution}'")]
        for _ in range(self._rounds):
            await self._tell("PauseExecution", pb.PauseExecutionRequest(execution_id=execution))
            await self._tell("ResumeExecution", pb.ResumeExecutionRequest(execution_id=execution))
            # A cancel locks what completions are just about to lock.
            await asyncio.sleep(self._on.random.uniform(0, 0.5))
            await self._tell("CancelExecution", pb.CancelExecutionRequest(execution_id=execution))
            cancelled = f"select id::text from results where id = any('{{{','.join(ids)}}}') and state = 'CANCELLED'"
            again = [row[0] for row in self._on.rows(cancelled)]
            if again:
                request_id = str(uuid.UUID(int=self._on.random.getrandbits(128), version=4))
                request = pb.RetryExecutionRequest(
                    execution_id=execution, request_id=request_id, result_ids=again, api_key=KEY
                )
                await self._tell("RetryExecution", request)
        if number % 2:
            await self._tell("CancelExecution", pb.CancelExecutionRequest(execution_id=execution))
            self.cancelled[number] = time.monotonic()

    async def _tell(self, method: str, request: Any) -> None:
        self.made += 1
        try:
            await self._on.call(method, request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:  # it has ended meanwhile: that is an answer
                self.refused.append(f"{method}: {error.code().name} {error.details()}")


async def submit_twice(ground: Ground, *, times: int = 50) -> Report:
    """The same request many times at once, over two gateways of which one is killed: one execution; another body: refused."""
    report = ground.report
    async with stage(ground, Setup(generators=1, watchers=1, latency="0.1")) as on:
        request_id = str(uuid.UUID(int=on.random.getrandbits(128), version=4))

        def request(words: str = "a boat") -> pb.CreateExecutionRequest:
            prompts = [execution_pb2.Prompt(text=f"[0-{n}] {words}") for n in range(5)]
            return pb.CreateExecutionRequest(request_id=request_id, model=MODEL, api_key=KEY, prompts=prompts)

        asked = [asyncio.create_task(on.call("CreateExecution", request())) for _ in range(times)]
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        on.gateways[0].kill()
        on.gateways[0].wait()
        on.gateways[0] = on.start_gateway(0)
        ids = {answer.execution.id for answer in await asyncio.gather(*asked)}
        on.executions += ids
        ((rows,),) = on.rows("select count(*) from executions")
        report.hold(f"{times} requests made {len(ids)} execution, {rows} in the database", kept=len(ids) == rows == 1)
        try:
            await on.call("CreateExecution", request("another boat"))
            code = "accepted"
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        report.hold(f"the same id with another body: {code}", kept=code == "ALREADY_EXISTS")
        await on.ended(within=60)
        on.verdict(report, results=5, extra_calls_allowed=False)
        report.none_of(times, "repeated creations")
    return report
