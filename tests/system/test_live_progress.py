"""WatchExecution through real processes: live from a generator, from storage without one, and never a gap or a repeat."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import grpc
import pytest
from fakes.gemini import FakeGemini
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from processes import cluster, product

from nanobatch.gateway.v1 import execution_pb2
from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch.gateway.v1.execution_service_pb2_grpc import ExecutionServiceStub
from nanobatch_client.models import ResultState, ResultUpdate
from nanobatch_runtime.testing import eventually

MODEL, KEY = "gemini-2.5-flash-image", "a-provider-key-for-tests"
FINAL = {execution_pb2.RESULT_STATE_COMPLETED, execution_pb2.RESULT_STATE_FAILED, execution_pb2.RESULT_STATE_CANCELLED}


class Watched:
    """What one client has been told over any number of streams, held against the promises as it comes."""

    def __init__(self) -> None:
        self.revision = 0
        self.rows: dict[str, execution_pb2.Result] = {}
        self.finals: dict[str, int] = {}
        self.execution: execution_pb2.Execution | None = None
        self.live_times: list[float] = []

    def take(self, message: pb.WatchExecutionResponse) -> None:
        kind = message.WhichOneof("update")
        if kind == "progress":
            assert message.revision == 0
            if message.progress.result_id:
                self.live_times.append(time.monotonic())
                told = self.rows.get(message.progress.result_id)
                assert told is None or told.state not in FINAL  # no guess follows a final state
            return
        assert message.revision > self.revision
        self.revision = message.revision
        if kind == "execution":
            self.execution = message.execution
            return
        assert message.result.revision == message.revision
        self.rows[message.result.id] = message.result
        if message.result.state in FINAL:
            self.finals[message.result.id] = self.finals.get(message.result.id, 0) + 1

    def holds_all(self, count: int) -> None:
        """Check that every result's final state came exactly once, and the execution's too."""
        assert len(self.finals) == count
        assert set(self.finals.values()) == {1}
        assert self.execution is not None
        assert self.execution.state == execution_pb2.EXECUTION_STATE_COMPLETED


@pytest.fixture
async def upstreams() -> AsyncIterator[tuple[FakeGemini, FakeGemini]]:
    async with FakeGemini(picture_bytes=30_000) as first, FakeGemini(picture_bytes=30_000) as second:
        yield first, second


async def test_without_the_generators_stream_live_progress_stops_and_final_states_still_arrive(
    tmp_path, upstreams, connect
):
    first, second = upstreams
    with cluster(tmp_path, NANOBATCH_LEASE_SECONDS="2", NANOBATCH_GENERATOR_CONCURRENCY="5") as services:
        services.storage(), services.gateway()
        one = services.generator("one", first.url, at=services.generator_target)
        services.generator("two", second.url)
        client = await connect(services.target)
        first._latency = second._latency = 0.7
        execution = await client.create_execution([f"boat {n}" for n in range(100)], model=MODEL, api_key=KEY)
        async with grpc.aio.insecure_channel(services.target) as channel:
            seen, streams = Watched(), ExecutionServiceStub(channel)
            call = streams.WatchExecution(pb.WatchExecutionRequest(execution_id=execution.id))
            reading = asyncio.create_task(_read(call, seen))

            await eventually(lambda: len(seen.live_times) >= 3 and len(seen.finals) >= 5 and first.calls, within=30)
            one.kill()
            await asyncio.to_thread(one.wait)
            already = len(seen.finals)
            await eventually(lambda: len(seen.finals) >= already + 5, within=20)
            live = len(seen.live_times)
            await eventually(lambda: len(seen.finals) >= already + 15, within=30)
            assert len(seen.live_times) == live  # a generator works on, and nobody streams its guesses
            assert not reading.done()

            services.generator("one-again", first.url, at=services.generator_target)
            await eventually(lambda: len(seen.live_times) > live, within=30)
            assert len(seen.finals) < 100
            first._latency = second._latency = 0.0
            await asyncio.wait_for(reading, 60)
            assert await call.code() is grpc.StatusCode.OK

            seen.holds_all(100)
            await _equals_the_snapshot(streams, execution.id, seen)
        await client.__aexit__(None, None, None)
        for log in tmp_path.glob("*.log"):
            assert "Traceback" not in log.read_text(), log.read_text()[-4000:]


async def test_watchers_that_come_back_at_any_revision_miss_nothing_and_see_nothing_twice(tmp_path, connect):
    with product(tmp_path, environment={"NANOBATCH_SANDBOX_DELAY": "0.3"}) as running:
        client = await connect(running.target)
        execution = await client.create_execution([f"boat {n}" for n in range(100)], model="sandbox")
        async with grpc.aio.insecure_channel(running.target) as channel:
            streams = ExecutionServiceStub(channel)
            watchers = [_in_pieces(streams, execution.id, random.Random(seed)) for seed in range(6)]
            for seen in await asyncio.wait_for(asyncio.gather(*watchers), 60):
                seen.holds_all(100)
                await _equals_the_snapshot(streams, execution.id, seen)

            # What is replayed to anybody who comes later is what the others have kept.
            everything = [message async for message in streams.WatchExecution(_watch(execution.id, 0))]
            last = everything[-1].revision
            assert last == (await client.get_execution(execution.id)).revision
            for revision in [*random.Random(1).sample(range(last), 6), last - 1, last]:
                replayed = [message async for message in streams.WatchExecution(_watch(execution.id, revision))]
                assert replayed == [message for message in everything if message.revision > revision]

            call = streams.WatchExecution(_watch(execution.id, last + 1))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _read(call, Watched())
            assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
            info = _info(caught.value)
            assert (info.domain, info.reason, info.metadata["revision"]) == ("nanobatch", "REVISION_UNKNOWN", str(last))
        await client.__aexit__(None, None, None)


async def test_a_draining_gateway_ends_watches_resumably_and_the_sdk_goes_on_at_the_next_one(tmp_path, connect):
    settings = {
        "NANOBATCH_SANDBOX_DELAY": "0.5",
        "NANOBATCH_CREDENTIAL_WINDOW": "5",
        "NANOBATCH_PUBLIC_URL": "http://pictures.test",  # without it each gateway tells its own address of a picture
    }
    with cluster(tmp_path, **settings) as services:
        services.storage()
        gateway = services.gateway()
        services.generator("one", at=services.generator_target)
        client = await connect(services.target)
        execution = await client.create_execution([f"[delay:0.5] boat {n}" for n in range(60)], model="sandbox")
        finals: list[str] = []
        revisions: list[int] = []

        async def watch_with_the_sdk() -> None:
            async for update in client.watch(execution.id):
                if update.revision:
                    revisions.append(update.revision)
                if isinstance(update, ResultUpdate) and update.result.state is ResultState.COMPLETED:
                    finals.append(update.result.id)

        watching = asyncio.create_task(watch_with_the_sdk())
        async with grpc.aio.insecure_channel(services.target) as channel:
            seen, streams = Watched(), ExecutionServiceStub(channel)
            reading = asyncio.create_task(_read(streams.WatchExecution(_watch(execution.id, 0)), seen))
            await eventually(lambda: len(seen.finals) >= 8 and len(finals) >= 8, within=30)
            gateway.terminate()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(reading, 10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            info = _info(caught.value)
            assert (info.domain, info.reason) == ("nanobatch", "WATCH_MOVED")
            assert int(info.metadata["revision"]) == seen.revision
        assert await asyncio.to_thread(gateway.wait, 10) == 0

        services.gateway()
        await (await connect(services.target)).__aexit__(None, None, None)  # it has met storage
        async with grpc.aio.insecure_channel(services.target) as channel:
            streams = ExecutionServiceStub(channel)
            request = _watch(execution.id, int(info.metadata["revision"]))
            await asyncio.wait_for(_read(streams.WatchExecution(request, wait_for_ready=True), seen), 60)
            await asyncio.wait_for(watching, 30)
            seen.holds_all(60)
            await _equals_the_snapshot(streams, execution.id, seen)
        assert len(finals) == len(set(finals)) == 60
        assert revisions == sorted(set(revisions))
        await client.__aexit__(None, None, None)


async def _read(call: AsyncIterator[pb.WatchExecutionResponse], seen: Watched) -> None:
    async for message in call:
        seen.take(message)


async def _in_pieces(streams: ExecutionServiceStub, execution_id: str, dice: random.Random) -> Watched:
    """Watch to the end, by streams that are dropped after a few messages each."""
    seen = Watched()
    while True:
        call = streams.WatchExecution(_watch(execution_id, seen.revision))
        left = dice.randrange(1, 60)
        async for message in call:
            seen.take(message)
            left -= 1
            if not left:
                call.cancel()
                break
        else:
            return seen


async def _equals_the_snapshot(streams: ExecutionServiceStub, execution_id: str, seen: Watched) -> None:
    page = await streams.ListResults(pb.ListResultsRequest(execution_id=execution_id, page_size=1000))
    assert {result.id: result for result in page.results} == seen.rows
    got = await streams.GetExecution(pb.GetExecutionRequest(execution_id=execution_id))
    assert got.execution == seen.execution


def _watch(execution_id: str, after_revision: int) -> pb.WatchExecutionRequest:
    return pb.WatchExecutionRequest(execution_id=execution_id, after_revision=after_revision)


def _info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(error).details[0].Unpack(info)
    return info
