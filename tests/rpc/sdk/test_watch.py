from __future__ import annotations

import asyncio
import socket
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest

from nanobatch_client import (
    Client,
    ExecutionState,
    ExecutionUpdate,
    InternalError,
    NotFoundError,
    OutOfRangeError,
    Patience,
    ResultState,
    ResultUpdate,
    UnavailableError,
    UnreachableError,
    Update,
)
from nanobatch_client.testing import ScriptedGateway, make_status
from nanobatch_runtime.testing import eventually


async def collect(client: Client, execution_id: str, after_revision: int = 0) -> list[Update]:
    return [update async for update in client.watch(execution_id, after_revision)]


def assert_each_final_state_came_exactly_once(updates: list[Update], count: int) -> None:
    revisions = [update.revision for update in updates if update.revision]
    assert revisions == sorted(set(revisions))
    finals = [u.result.id for u in updates if isinstance(u, ResultUpdate) and u.result.state.is_final]
    assert len(finals) == len(set(finals)) == count
    last = updates[-1]
    assert isinstance(last, ExecutionUpdate)
    assert last.execution.state is ExecutionState.COMPLETED
    assert last.stats.completion_percentage == 100


async def test_a_watch_ends_normally_with_the_run(client: Client) -> None:
    execution = await client.create_execution(["one", "two"], model="sandbox")
    assert_each_final_state_came_exactly_once(await collect(client, execution.id), 2)


async def test_a_finished_run_is_replayed(client: Client) -> None:
    execution = await client.create_execution(["one", "two"], model="sandbox")
    await collect(client, execution.id)
    assert_each_final_state_came_exactly_once(await collect(client, execution.id), 2)


@pytest.mark.parametrize(
    "ending",
    [
        make_status("UNAVAILABLE", reason="WATCH_MOVED", metadata={"revision": "3"}),
        make_status("RESOURCE_EXHAUSTED", reason="WATCHER_TOO_SLOW", metadata={"revision": "3"}),
        make_status("UNAVAILABLE", "Socket closed"),
        make_status("INTERNAL", "Received RST_STREAM with error code 2"),
        make_status("UNKNOWN", "Stream removed"),
        make_status("CANCELLED", "by a proxy"),
    ],
    ids=lambda status: f"{status.code}-{len(status.details)}",
)
async def test_a_watch_that_breaks_after_every_message_has_no_gap_and_no_repeat(
    gateway: ScriptedGateway, client: Client, ending: object
) -> None:
    execution = await client.create_execution([f"prompt {n}" for n in range(5)], model="sandbox")
    gateway.watch_breaks.extend((messages, ending) for messages in (0, 1, 2, 1, 3, 0, 1))
    updates = await collect(client, execution.id)
    assert_each_final_state_came_exactly_once(updates, 5)
    assert gateway.count("WatchExecution") > 4


async def test_what_a_server_tells_twice_is_heard_once(gateway: ScriptedGateway, client: Client) -> None:
    gateway.forgetful = True
    execution = await client.create_execution([f"prompt {n}" for n in range(5)], model="sandbox")
    gateway.watch_breaks.extend((messages, make_status("UNAVAILABLE")) for messages in (3, 5, 8))
    assert_each_final_state_came_exactly_once(await collect(client, execution.id), 5)


async def test_a_watch_survives_a_restart_of_the_server(gateway: ScriptedGateway, client: Client) -> None:
    execution = await client.create_execution(["one", "[hold] two", "three"], model="sandbox")
    updates: list[Update] = []
    first_done = asyncio.Event()

    async def watch() -> None:
        async for update in client.watch(execution.id):
            updates.append(update)
            if isinstance(update, ResultUpdate) and update.result.state is ResultState.COMPLETED:
                first_done.set()

    watching = asyncio.create_task(watch())
    await asyncio.wait_for(first_done.wait(), 10)
    await gateway.stop()
    gateway.release()
    await eventually(lambda: gateway.runs[execution.id].ended)
    await gateway.start()
    await asyncio.wait_for(watching, 15)
    assert_each_final_state_came_exactly_once(updates, 3)
    asked = [request.after_revision for name, request, _ in gateway.calls if name == "WatchExecution"]
    assert asked[0] == 0
    assert asked[-1] > 0


async def test_a_watch_goes_on_after_the_given_revision(client: Client) -> None:
    execution = await client.create_execution(["one", "two"], model="sandbox")
    everything = await collect(client, execution.id)
    middle = everything[len(everything) // 2].revision
    rest = await collect(client, execution.id, middle)
    assert [u.revision for u in rest] == [u.revision for u in everything if u.revision > middle]


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        (make_status("NOT_FOUND", reason="EXECUTION_NOT_FOUND"), NotFoundError),
        (make_status("OUT_OF_RANGE", reason="REVISION_UNKNOWN"), OutOfRangeError),
        (make_status("INTERNAL", reason="INTERNAL", metadata={"incident": "abc"}), InternalError),
    ],
)
async def test_ends_that_another_connection_would_not_mend_are_raised(
    gateway: ScriptedGateway, client: Client, ending: object, error: type[Exception]
) -> None:
    execution = await client.create_execution(["one"], model="sandbox")
    gateway.watch_breaks.append((1, ending))
    with pytest.raises(error):
        await collect(client, execution.id)
    assert gateway.count("WatchExecution") == 1


async def test_a_server_that_never_comes_back_ends_the_watch(gateway: ScriptedGateway) -> None:
    patience = Patience(watch=timedelta(milliseconds=500))
    async with Client(gateway.target, patience=patience) as client:
        execution = await client.create_execution(["[hold]"], model="sandbox")
        updates = client.watch(execution.id)
        await anext(updates)
        await gateway.stop()
        with pytest.raises(UnavailableError):
            async for _ in updates:
                pass


async def test_a_watch_that_was_quiet_for_hours_is_resumed_each_time(
    gateway: ScriptedGateway, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = [0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * hours[0])
    monkeypatch.setattr("nanobatch_client._watch.time", clock)
    execution = await client.create_execution(["[hold]"], model="sandbox")
    watching = asyncio.create_task(collect(client, execution.id))
    for watches in (1, 2, 3):
        await eventually(lambda watches=watches: gateway.count("WatchExecution") >= watches)
        hours[0] += 1
        await gateway.stop()
        await gateway.start()
    gateway.release()
    assert_each_final_state_came_exactly_once(await asyncio.wait_for(watching, 20), 1)


async def test_a_watch_goes_on_at_another_gateway_when_its_own_is_gone(gateway: ScriptedGateway) -> None:
    async with ScriptedGateway() as other:
        other.runs = gateway.runs
        target = f"ipv4:{gateway.target},{other.target}"
        async with Client(target) as client:
            execution = await client.create_execution(["one", "[hold] two"], model="sandbox")
            watching = asyncio.create_task(collect(client, execution.id))
            both = (gateway, other)
            await eventually(lambda: any(one.count("WatchExecution") for one in both))
            [mine] = [one for one in both if one.count("WatchExecution")]
            await mine.stop()
            await eventually(lambda: all(one.count("WatchExecution") for one in both), within=2)
            for one in both:
                one.release()
            assert_each_final_state_came_exactly_once(await asyncio.wait_for(watching, 10), 2)


async def test_a_server_that_never_was_there_is_reported_soon() -> None:
    with socket.socket() as taken:  # bound, not listening: nobody answers there, and nobody else takes it
        taken.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        async with Client(target, patience=Patience(connect=timedelta(milliseconds=300))) as client:
            with pytest.raises(UnreachableError, match=target):
                await collect(client, "some id")
            with pytest.raises(UnreachableError, match=target):
                await client.list_models()


async def test_leaving_a_watch_early_ends_the_call(client: Client) -> None:
    execution = await client.create_execution(["[hold]"], model="sandbox")
    updates = client.watch(execution.id)
    await anext(updates)
    await updates.aclose()
