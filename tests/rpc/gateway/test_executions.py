"""Executions through a real gateway: what storage is told, and what a client is told."""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from nanobatch.gateway.v1 import execution_pb2, image_pb2, model_service_pb2
from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch_catalog import find_model, worst_case_micros
from nanobatch_runtime.ids import new_id
from nanobatch_runtime.keyring import fingerprint
from nanobatch_runtime.testing import eventually

FLASH = "gemini-2.5-flash-image"
KEY = "AIzaNotARealKeyJustForTests1234567890"


def request(**changes: Any) -> pb.CreateExecutionRequest:
    fields: dict[str, Any] = {"model": FLASH, "api_key": KEY, "prompts_text": "a cat\n\na dog"}
    return pb.CreateExecutionRequest(**{**fields, **changes})


async def test_storage_is_told_everything_and_the_key_only_encrypted(world) -> None:
    image_id = new_id()
    world.storage.images[image_id] = (image_pb2.Image(id=image_id), b"")
    response = await world.executions.CreateExecution(
        request(
            request_id=new_id(),
            prompts_text="",
            prompts=[
                execution_pb2.Prompt(text="a cat"),
                execution_pb2.Prompt(text="a long dog", variations=2, source_image_id=image_id),
            ],
            prompt_prefix="photo of",
            variations=3,
            reference_image_ids=[image_id],
            output=execution_pb2.OutputOptions(aspect_ratio="16:9"),
            max_cost_micros=0,
            labels={"a": "b"},
        )
    )
    (sent,) = world.storage.creates
    assert response.execution.id in world.storage.executions
    assert (sent.model, sent.provider) == (FLASH, "gemini")
    assert [(p.text, p.variations, p.source_image_id) for p in sent.prompts] == [
        ("a cat", 3, ""),
        ("a long dog", 2, image_id),
    ]
    settings = sent.settings
    assert (settings.prompt_prefix, settings.variations, settings.max_attempts) == ("photo of", 3, 3)
    assert settings.timeout.seconds == 180
    assert not settings.HasField("seed")
    assert settings.on_unknown == execution_pb2.UNKNOWN_POLICY_RETRY
    assert settings.output.aspect_ratio == "16:9"
    assert list(settings.reference_image_ids) == [image_id]
    assert sent.mode == execution_pb2.EXECUTION_MODE_STANDARD
    assert sent.HasField("max_cost_micros")
    assert sent.max_cost_micros == 0
    assert dict(sent.labels) == {"a": "b"}
    assert sent.estimated_cost_micros == 5 * 39_000
    model = find_model(FLASH)
    assert model is not None
    whole = len("photo of a long dog")
    assert sent.reservation_micros == worst_case_micros(model, prompt_characters=whole, input_images=2)
    assert world.storage.opened(sent.credential) == KEY
    assert sent.fingerprint == sent.credential.fingerprint
    assert KEY.encode() not in sent.SerializeToString()


async def test_a_repeat_is_the_same_execution_and_another_key_is_another_request(world, refused) -> None:
    request_id = new_id()
    first = await world.executions.CreateExecution(request(request_id=request_id))
    again = await world.executions.CreateExecution(
        request(request_id=request_id, prompts_text="", prompts=[{"text": "a cat"}, {"text": "a dog"}], variations=1)
    )
    assert again.execution.id == first.execution.id
    assert world.storage.creates[0].credential.id != world.storage.creates[1].credential.id
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.executions.CreateExecution(request(request_id=request_id, api_key="AIzaAnotherKey"))
    assert refused(caught.value).code is grpc.StatusCode.ALREADY_EXISTS
    assert refused(caught.value).reason == "REQUEST_ID_REUSED"


async def test_the_sandbox_needs_no_key_and_keeps_none(world) -> None:
    await world.executions.CreateExecution(request(model="sandbox"))
    (sent,) = world.storage.creates
    assert not sent.HasField("credential")
    assert sent.fingerprint == fingerprint(world.storage.secret(), "sandbox", "")


async def test_a_foreign_client_reads_every_bad_field_at_once_and_nothing_is_stored(world, refused) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.executions.CreateExecution(
            request(
                api_key="two words",
                prompts_text="",
                prompts=[{"text": "fine"}, {"text": "x" * 10_001}],
                reference_image_ids=[new_id(), "nonsense", new_id(), new_id()],
                output={"aspect_ratio": "7:1"},
                variations=5,
                max_cost_micros=-1,
                mode=77,
            )
        )
    error = refused(caught.value)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (error.reason, error.info.domain) == ("INVALID_REQUEST", "nanobatch")
    assert sorted(error.fields) == sorted(
        [
            ("api_key", "MALFORMED"),
            ("prompts[1].text", "TOO_LONG"),
            ("reference_image_ids", "TOO_MANY"),
            ("reference_image_ids[0]", "NOT_FOUND"),
            ("reference_image_ids[1]", "MALFORMED"),
            ("reference_image_ids[2]", "NOT_FOUND"),
            ("output.aspect_ratio", "NOT_OFFERED"),
            ("variations", "OUT_OF_RANGE"),
            ("max_cost_micros", "OUT_OF_RANGE"),
            ("mode", "UNKNOWN_VALUE"),
        ]
    )
    assert "two words" not in str(caught.value)
    assert not world.storage.creates


async def test_a_hundred_bad_prompts_still_fit_into_an_answer(world, refused) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.executions.CreateExecution(request(prompts_text="", prompts=[{"text": "é\0"}] * 100))
    error = refused(caught.value)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.fields[-1][1] == "MORE_VIOLATIONS"


async def test_an_estimate_needs_no_key_and_uses_the_history(world) -> None:
    without = await world.executions.EstimateCost(
        pb.EstimateCostRequest(execution=request(api_key="", variations=4, prompts_text="a\n\nb\n\nc"))
    )
    assert (without.image_count, without.per_image_micros, without.total_micros) == (12, 39_000, 468_000)
    assert without.expected_duration.seconds == 2 * 8
    world.storage.latency.sample_count = 3
    world.storage.latency.median.CopyFrom(duration_pb2.Duration(seconds=5))
    known = await world.executions.EstimateCost(pb.EstimateCostRequest(execution=request()))
    assert known.expected_duration.seconds == 5
    assert not world.storage.creates


async def test_an_estimate_warns_and_works_without_storage(world) -> None:
    from datetime import timedelta  # noqa: PLC0415  # one use

    world.clock.advance(timedelta(days=270))
    await world.storage.stop()
    response = await world.executions.EstimateCost(pb.EstimateCostRequest(execution=request()))
    assert response.expected_duration.seconds == 8
    assert "retires on 2026-10-02" in response.warnings[0]


async def test_a_foreign_id_and_an_unknown_one_are_answered_byte_for_byte_alike(world, refused) -> None:
    foreign, unknown = world.storage.new_execution(), new_id()
    world.storage.foreign.add(foreign)
    answers = []
    for execution_id in (foreign, unknown):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await world.executions.GetExecution(pb.GetExecutionRequest(execution_id=execution_id))
        answers.append(refused(caught.value).status.SerializeToString())
    assert answers[0] == answers[1]
    assert b"EXECUTION_NOT_FOUND" in answers[0]


async def test_every_malformed_id_is_named(world, refused) -> None:
    calls = [
        (world.executions.GetExecution, pb.GetExecutionRequest(execution_id="x"), "execution_id"),
        (world.executions.CancelExecution, pb.CancelExecutionRequest(), "execution_id"),
        (world.executions.PauseExecution, pb.PauseExecutionRequest(execution_id="x"), "execution_id"),
        (world.executions.ResumeExecution, pb.ResumeExecutionRequest(execution_id="x"), "execution_id"),
        (world.executions.RetryExecution, pb.RetryExecutionRequest(execution_id="x"), "execution_id"),
        (world.executions.DeleteExecution, pb.DeleteExecutionRequest(execution_id="x"), "execution_id"),
        (world.executions.ListResults, pb.ListResultsRequest(execution_id="x"), "execution_id"),
        (world.executions.GetResult, pb.GetResultRequest(result_id="x"), "result_id"),
    ]
    for method, message, field in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(message)
        error = refused(caught.value)
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert [name for name, _ in error.fields] == [field]


async def test_storages_own_errors_pass_on_unchanged(world, refused) -> None:
    execution_id = world.storage.new_execution()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.executions.PauseExecution(pb.PauseExecutionRequest(execution_id=execution_id))
    error = refused(caught.value)
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert (error.message, error.reason, error.metadata) == ("It has ended.", "EXECUTION_FINAL", {"state": "COMPLETED"})


async def test_lost_storage_is_said_plainly_and_without_addresses(world, refused) -> None:
    await world.storage.stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.executions.GetExecution(pb.GetExecutionRequest(execution_id=new_id()))
    error = refused(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    assert "unix" not in str(caught.value)
    assert str(world.folder) not in str(caught.value)


async def test_a_retry_brings_edits_and_a_new_key(world, refused) -> None:
    execution_id = world.storage.new_execution(FLASH, prompt_prefix="p" * 99)
    result_id = new_id()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.executions.RetryExecution(
            pb.RetryExecutionRequest(execution_id=execution_id, edits=[{"result_id": result_id, "text": "x" * 9_901}])
        )
    assert refused(caught.value).fields == [("edits[0].text", "TOO_LONG")]
    response = await world.executions.RetryExecution(
        pb.RetryExecutionRequest(
            execution_id=execution_id,
            request_id=new_id(),
            result_ids=[result_id],
            api_key=KEY,
            edits=[{"result_id": result_id, "text": "x" * 9_900}],
        )
    )
    sent = world.storage.asked[-1]
    assert response.retried == 3
    assert world.storage.opened(sent.credential) == KEY
    assert len(sent.request_hash) == 64
    assert sent.edits[0].result_id == result_id


async def test_a_resume_brings_a_new_key_and_cap(world) -> None:
    execution_id = world.storage.new_execution(FLASH)
    await world.executions.ResumeExecution(
        pb.ResumeExecutionRequest(execution_id=execution_id, api_key=KEY, max_cost_micros=5)
    )
    sent = world.storage.asked[-1]
    assert world.storage.opened(sent.credential) == KEY
    assert sent.max_cost_micros == 5
    await world.executions.ResumeExecution(pb.ResumeExecutionRequest(execution_id=execution_id))
    assert not world.storage.asked[-1].HasField("credential")
    assert not world.storage.asked[-1].HasField("max_cost_micros")


@pytest.mark.parametrize("how", ["resume", "retry"])
async def test_a_key_that_an_admin_gives_is_sealed_for_the_owner(world, how: str) -> None:
    execution_id, owner = world.storage.new_execution(FLASH), new_id()
    world.storage.owners[execution_id] = owner
    if how == "resume":
        await world.executions.ResumeExecution(pb.ResumeExecutionRequest(execution_id=execution_id, api_key=KEY))
    else:
        await world.executions.RetryExecution(pb.RetryExecutionRequest(execution_id=execution_id, api_key=KEY))
    assert world.storage.opened(world.storage.asked[-1].credential, owner) == KEY


async def test_cancelling_tells_what_is_still_out(world) -> None:
    execution_id = world.storage.new_execution()
    response = await world.executions.CancelExecution(pb.CancelExecutionRequest(execution_id=execution_id))
    assert (response.execution.id, response.in_flight, response.maybe_charged_micros) == (execution_id, 2, 78_000)


async def test_pages_follow_each_other_and_a_token_of_another_list_is_refused(world, refused) -> None:
    ids = [world.storage.new_execution() for _ in range(5)]
    seen: list[str] = []
    token = ""
    while True:
        page = await world.executions.ListExecutions(pb.ListExecutionsRequest(page_size=2, page_token=token))
        seen += [execution.id for execution in page.executions]
        token = page.next_page_token
        if not token:
            break
    assert seen == ids
    results = await world.executions.ListResults(pb.ListResultsRequest(execution_id=ids[0]))
    assert world.storage.asked[-1].page_size == 50
    bad = [
        (world.executions.ListExecutions, pb.ListExecutionsRequest(page_token=results.next_page_token)),
        (
            world.executions.ListResults,
            pb.ListResultsRequest(execution_id=ids[1], page_token=results.next_page_token),
        ),
        (
            world.executions.ListResults,
            pb.ListResultsRequest(execution_id=ids[0], page_token=results.next_page_token, states=[3]),
        ),
    ]
    for method, message in bad:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(message)
        assert refused(caught.value).fields == [("page_token", "MALFORMED")]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.executions.ListResults(pb.ListResultsRequest(execution_id=ids[0], page_size=1_001, states=[9]))
    assert refused(caught.value).fields == [("page_size", "OUT_OF_RANGE"), ("states[0]", "UNKNOWN_VALUE")]


async def test_models_are_listed_without_storage_or_generator(idle_world) -> None:
    async with idle_world.gateway():
        response = await idle_world.models.ListModels(model_service_pb2.ListModelsRequest())
    flash = next(model for model in response.models if model.id == FLASH)
    assert (flash.prices[0].micros, flash.max_reference_images, flash.needs_key) == (39_000, 3, True)
    assert flash.retirement_date == "2026-10-02"


async def test_a_key_is_checked_by_a_generator_or_by_nobody(world, refused) -> None:
    check = model_service_pb2.CheckApiKeyRequest
    assert (await world.models.CheckApiKey(check(model=FLASH, api_key=" good "))).valid
    assert (world.generator.checks[0].provider, world.generator.checks[0].api_key) == ("gemini", "good")
    assert not (await world.models.CheckApiKey(check(model=FLASH, api_key="bad"))).valid
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.models.CheckApiKey(check(model="no-such"))
    assert refused(caught.value).fields == [("model", "UNKNOWN_MODEL")]
    await world.generator.stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.models.CheckApiKey(check(model=FLASH, api_key="good"))
    assert (refused(caught.value).code, refused(caught.value).reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "GENERATOR_UNAVAILABLE",
    )


async def test_reflection_lists_the_services_and_health_serves(world) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(world.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    async for answer in stub.ServerReflectionInfo(asked):
        names = {service.name for service in answer.list_services_response.service}
    assert {f"nanobatch.gateway.v1.{name}Service" for name in ("Execution", "Image", "Model")} < names
    health: Any = health_pb2_grpc.HealthStub(world.channel)
    for name in ("", "nanobatch.gateway.v1.ExecutionService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_gateway_may_start_before_storage(idle_world, refused) -> None:
    async with idle_world.gateway() as app:
        health: Any = health_pb2_grpc.HealthStub(idle_world.channel)
        waiting = await health.Check(health_pb2.HealthCheckRequest())
        assert waiting.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await idle_world.executions.CreateExecution(request(model="sandbox"))
        assert (refused(caught.value).code, refused(caught.value).reason) == (grpc.StatusCode.UNAVAILABLE, "STARTING")
        watch = idle_world.executions.WatchExecution(pb.WatchExecutionRequest(execution_id=new_id()))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch.read()
        assert refused(caught.value).reason == "STARTING"
        await idle_world.storage.start()
        await eventually(app.started.done)
        await idle_world.executions.CreateExecution(request(model="sandbox"))
        assert idle_world.storage.users == {"00000000-0000-4000-8000-000000000001": "local"}


async def test_two_gateways_agree_on_the_fingerprint_secret(world) -> None:
    await world.executions.CreateExecution(request())
    async with AsyncExitStack() as stack:
        await world.open(stack)
        await world.executions.CreateExecution(request())
    first, second = world.storage.creates
    assert first.fingerprint == second.fingerprint
    assert first.request_hash == second.request_hash
    assert first.credential.key.encrypted != second.credential.key.encrypted
    assert hashlib.sha256(KEY.encode()).hexdigest() != first.fingerprint


async def test_an_unknown_method_is_unimplemented(world) -> None:
    call = world.channel.unary_unary("/nanobatch.gateway.v1.ExecutionService/Nothing")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
