from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import grpc
import pytest
from relay import relayed

from nanobatch_client import (
    Client,
    ConflictError,
    ExecutionState,
    InvalidRequestError,
    NanobatchError,
    NotFoundError,
    Patience,
    Prompt,
    RateLimitedError,
    ResultState,
    UnavailableError,
    UnknownPolicy,
    UnreachableError,
    Violation,
    errors,
)
from nanobatch_client.testing import ScriptedGateway, make_status
from nanobatch_runtime.testing import eventually

CODES = [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.mark.parametrize("code", CODES)
async def test_every_code_arrives_as_its_class_with_all_details(
    gateway: ScriptedGateway, client: Client, code: str
) -> None:
    violations = [Violation("prompts[3].text", "It is too long.", "TOO_LONG"), Violation("model", "Unknown.", "X")]
    status = make_status(
        code,
        "a sentence",
        reason="SOME_REASON",
        metadata={"revision": "7"},
        violations=violations,
        retry_after=timedelta(seconds=2.5),
    )
    gateway.failures["CancelExecution"].append(status)  # a call that is never repeated
    with pytest.raises(NanobatchError) as caught:
        await client.cancel_execution("x")
    error = caught.value
    assert type(error) is errors.BY_CODE.get(code, NanobatchError)
    assert (error.code, error.message, error.reason) == (code, "a sentence", "SOME_REASON")
    assert error.metadata == {"revision": "7"}
    assert error.violations == tuple(violations)
    assert error.retry_after == timedelta(seconds=2.5)
    assert error.__suppress_context__  # nobody wants to read gRPC's own trace above it


@pytest.mark.parametrize("code", CODES)
async def test_every_code_without_details_still_has_its_class(
    gateway: ScriptedGateway, client: Client, code: str
) -> None:
    gateway.failures["PauseExecution"].append(make_status(code, "from a proxy"))
    with pytest.raises(NanobatchError) as caught:
        await client.pause_execution("x")
    # What a server that ends has not looked at yet, gRPC answers with CANCELLED.
    nobody = code in {"UNAVAILABLE", "CANCELLED"}
    assert type(caught.value) is (UnreachableError if nobody else errors.BY_CODE.get(code, NanobatchError))
    assert caught.value.violations == ()


async def test_reads_are_repeated_while_the_server_is_unavailable(gateway: ScriptedGateway, client: Client) -> None:
    gateway.failures["ListModels"].extend([make_status("UNAVAILABLE", reason="DRAINING")] * 3)
    assert [model.id for model in await client.list_models()] == ["gemini-2.5-flash-image", "sandbox"]
    assert gateway.count("ListModels") == 4


async def test_a_gateway_that_ends_under_many_calls_fails_none_that_is_safe(
    gateway: ScriptedGateway, client: Client
) -> None:
    stopped = asyncio.Event()

    async def ask() -> None:
        while not stopped.is_set():
            await client.list_models()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(ask())
        for _ in range(3):
            before = gateway.count("ListModels")
            await eventually(lambda before=before: gateway.count("ListModels") > before + 20)
            await gateway.stop()
            await gateway.start()
        stopped.set()


async def test_a_creation_is_repeated_with_the_same_request_id(gateway: ScriptedGateway, client: Client) -> None:
    gateway.failures["CreateExecution"].append(make_status("UNAVAILABLE", reason="DRAINING"))
    await client.create_execution(["one"], model="sandbox")
    ids = {request.request_id for name, request, _ in gateway.calls if name == "CreateExecution"}
    assert gateway.count("CreateExecution") == 2
    assert len(ids) == 1
    assert uuid.UUID(ids.pop())


@pytest.mark.parametrize("call", ["cancel", "pause", "resume", "delete"])
async def test_calls_that_are_not_safe_are_made_once(gateway: ScriptedGateway, client: Client, call: str) -> None:
    gateway.failures[f"{call.title()}Execution"].append(make_status("UNAVAILABLE", reason="DRAINING"))
    with pytest.raises(UnavailableError):
        await getattr(client, f"{call}_execution")("x")
    assert gateway.count(f"{call.title()}Execution") == 1


async def test_rate_limits_are_the_callers_to_wait_for(gateway: ScriptedGateway, client: Client) -> None:
    status = make_status("RESOURCE_EXHAUSTED", reason="TOO_MANY_REQUESTS", retry_after=timedelta(seconds=9))
    gateway.failures["ListModels"].append(status)
    with pytest.raises(RateLimitedError) as caught:
        await client.list_models()
    assert caught.value.retryable
    assert caught.value.retry_after == timedelta(seconds=9)


async def test_a_call_without_an_answer_ends_at_its_time_limit(gateway: ScriptedGateway) -> None:
    gateway.hanging.add("CancelExecution")
    async with Client(gateway.target, patience=Patience(timeout=timedelta(milliseconds=200))) as client:
        with pytest.raises(errors.DeadlineExceededError):
            await client.cancel_execution("x")


async def test_what_is_not_given_stays_unset(gateway: ScriptedGateway, client: Client) -> None:
    await client.create_execution(prompts_text="one\n\ntwo", model="sandbox")
    request = gateway.calls[-1][1]
    optional = ("variations", "seed", "max_cost_micros", "max_attempts", "timeout", "api_key", "credential_id")
    assert not any(request.HasField(name) for name in optional)
    assert request.prompts_text == "one\n\ntwo"
    assert not request.prompts


async def test_what_is_given_arrives(gateway: ScriptedGateway, client: Client) -> None:
    await client.create_execution(
        ["plain", Prompt("edited", source_image_id="s", reference_image_ids=("r",), variations=2)],
        model="gemini-2.5-flash-image",
        api_key="k",
        request_id="00000000-0000-4000-8000-000000000009",
        aspect_ratio="16:9",
        image_size="2K",
        variations=0,
        seed=0,
        max_cost_micros=0,
        max_attempts=1,
        timeout=timedelta(seconds=1.5),
        on_unknown=UnknownPolicy.FAIL,
        prefix="a",
        suffix="b",
        labels={"k": "v"},
    )
    request = gateway.calls[-1][1]
    assert [prompt.text for prompt in request.prompts] == ["plain", "edited"]
    assert request.prompts[1].variations == 2
    assert not request.prompts[0].HasField("variations")
    assert (request.api_key, request.output.aspect_ratio, request.output.image_size) == ("k", "16:9", "2K")
    # Zero is a value, not an absence.
    assert all(request.HasField(name) for name in ("variations", "seed", "max_cost_micros"))
    assert request.timeout.ToTimedelta() == timedelta(seconds=1.5)
    assert request.on_unknown == 2
    assert (request.prompt_prefix, request.prompt_suffix, dict(request.labels)) == ("a", "b", {"k": "v"})
    assert request.request_id.endswith("9")


async def test_one_string_is_not_taken_for_a_list_of_prompts(client: Client) -> None:
    with pytest.raises(TypeError, match="prompts_text"):
        await client.create_execution("a cat", model="sandbox")


async def test_numbers_that_no_message_can_hold_are_refused_by_their_fields(
    gateway: ScriptedGateway, client: Client
) -> None:
    too_much = 2**63
    prompts = ["one", Prompt("two", variations=2**31)]
    with pytest.raises(InvalidRequestError) as run:
        await client.create_execution(prompts, model="sandbox", max_cost_micros=too_much, seed=-too_much)
    named = [(bad.field, bad.reason) for bad in run.value.violations]
    assert named == [(name, "OUT_OF_RANGE") for name in ("seed", "max_cost_micros", "prompts[1].variations")]
    for call, field in (
        (client.estimate_cost(["one"], model="sandbox", max_cost_micros=too_much), "max_cost_micros"),
        (client.resume_execution("x", max_cost_micros=too_much), "max_cost_micros"),
        (client.create_user("x", daily_cap_micros=too_much), "daily_cap_micros"),
        (client.update_user("x", daily_cap_micros=too_much), "user.daily_cap_micros"),
    ):
        with pytest.raises(InvalidRequestError) as refused:
            await call
        assert [bad.field for bad in refused.value.violations] == [field]
        assert refused.value.reason == "INVALID_REQUEST"
    assert gateway.calls == []


async def test_all_violations_arrive(gateway: ScriptedGateway, client: Client) -> None:
    gateway.violations = [Violation(f"prompts[{n}].text", "Too long.") for n in range(40)]
    with pytest.raises(InvalidRequestError) as caught:
        await client.create_execution(["x"], model="sandbox")
    assert len(caught.value.violations) == 40


async def test_a_token_and_the_user_agent_go_with_every_call(gateway: ScriptedGateway) -> None:
    async with Client(gateway.target, token="t0ken") as client:
        execution = await client.create_execution(["one"], model="sandbox", references=[b"bytes"])
        async for _ in client.watch(execution.id):
            pass
    assert {"UploadImage", "CreateExecution", "WatchExecution"} <= {name for name, _, _ in gateway.calls}
    assert {metadata["authorization"] for _, _, metadata in gateway.calls} == {"Bearer t0ken"}
    assert all(metadata["user-agent"].startswith("nanobatch-python/") for _, _, metadata in gateway.calls)


async def test_lists_go_through_all_pages(gateway: ScriptedGateway, client: Client) -> None:
    execution = await client.create_execution([f"p{n}" for n in range(60)], model="sandbox", variations=2)
    results = [result async for result in client.list_results(execution.id)]
    assert [(r.batch_index, r.variation) for r in results] == [(i, v) for i in range(60) for v in range(2)]
    assert gateway.count("ListResults") == 3
    for _ in range(54):
        await client.create_execution(["x"], model="sandbox")
    listed = [each.id async for each in client.list_executions()]
    assert len(set(listed)) == 55
    assert listed[-1] == execution.id


async def test_the_other_calls_translate_both_ways(gateway: ScriptedGateway, client: Client) -> None:
    execution = await client.create_execution(["[hold] a", "b", "[fail] c"], model="sandbox", max_cost_micros=5)
    assert (await client.get_execution(execution.id)).max_cost_micros == 5
    first = await anext(client.list_results(execution.id))
    assert (await client.get_result(first.id)).prompt_text == "[hold] a"
    assert (await client.pause_execution(execution.id)).state is ExecutionState.PAUSED
    cancelled = await client.cancel_execution(execution.id)
    assert cancelled.execution.state is ExecutionState.CANCELLED
    only = [r async for r in client.list_results(execution.id, states=[ResultState.CANCELLED])]
    assert {r.batch_index for r in only} == {1, 2}
    await client.delete_execution(execution.id)
    with pytest.raises(NotFoundError) as caught:
        await client.get_execution(execution.id)
    assert caught.value.reason == "EXECUTION_NOT_FOUND"
    estimate = await client.estimate_cost(["a", "b"], model="gemini-2.5-flash-image", variations=2)
    assert (estimate.total_micros, estimate.image_count) == (4 * 39_000, 4)
    assert not (await client.check_api_key("gemini-2.5-flash-image", "bad")).valid


async def test_failed_results_are_retried_with_edits(gateway: ScriptedGateway, client: Client) -> None:
    execution = await client.create_execution(["[fail] a"], model="sandbox")
    async for _ in client.watch(execution.id):
        pass
    again = await client.retry_execution(execution.id, api_key="k", edits={"id": "new words"})
    assert again.retried == 1
    request = gateway.calls[-1][1]
    assert (request.api_key, request.edits[0].result_id, request.edits[0].text) == ("k", "id", "new words")


async def test_a_conflict_is_a_conflict(gateway: ScriptedGateway, client: Client) -> None:
    gateway.failures["CreateExecution"].append(make_status("ALREADY_EXISTS", reason="REQUEST_ID_TAKEN"))
    with pytest.raises(ConflictError):
        await client.create_execution(["x"], model="sandbox")


async def test_a_client_that_was_not_entered_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await Client().list_models()


async def test_a_server_that_is_far_away_is_reached_at_the_first_try(gateway: ScriptedGateway) -> None:
    async with relayed(gateway.target, seconds=0.5) as port, Client(f"127.0.0.1:{port}") as client:
        with pytest.raises(NotFoundError):  # an answer; UNAVAILABLE would be none, and this call is never repeated
            await client.pause_execution("x")
