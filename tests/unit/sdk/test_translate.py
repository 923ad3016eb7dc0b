from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import Enum

import pytest

from nanobatch.gateway.v1 import execution_pb2, execution_service_pb2, image_pb2, model_pb2
from nanobatch_client import _translate, models

ENUMS = [
    (models.ExecutionState, execution_pb2.ExecutionState, "EXECUTION_STATE_"),
    (models.ResultState, execution_pb2.ResultState, "RESULT_STATE_"),
    (models.PauseReason, execution_pb2.PauseReason, "PAUSE_REASON_"),
    (models.ExecutionMode, execution_pb2.ExecutionMode, "EXECUTION_MODE_"),
    (models.Charged, execution_pb2.Charged, "CHARGED_"),
    (models.UnknownPolicy, execution_pb2.UnknownPolicy, "UNKNOWN_POLICY_"),
    (models.WaitReason, execution_pb2.WaitReason, "WAIT_REASON_"),
    (models.ImageKind, image_pb2.ImageKind, "IMAGE_KIND_"),
]
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(("ours", "theirs", "prefix"), ENUMS, ids=lambda each: getattr(each, "__name__", ""))
def test_every_enum_has_every_value_of_the_contract(ours: type[Enum], theirs: object, prefix: str) -> None:
    assert {prefix + member.name for member in ours} == set(theirs.keys())


def test_a_value_of_a_newer_server_is_unspecified_and_no_error() -> None:
    execution = execution_pb2.Execution(state=99)
    assert _translate.execution(execution).state is models.ExecutionState.UNSPECIFIED


@pytest.mark.parametrize(
    ("ours", "message", "renamed", "left_out"),
    [
        (models.Stats, execution_pb2.ExecutionStats, {}, set()),
        (models.Execution, execution_pb2.Execution, {}, set()),
        (models.Result, execution_pb2.Result, {}, set()),
        (models.ResultError, execution_pb2.ResultError, {}, set()),
        (models.Progress, execution_pb2.Progress, {}, set()),
        (models.Estimate, execution_service_pb2.EstimateCostResponse, {}, set()),
        (models.Image, image_pb2.Image, {"image_url": "url"}, set()),
        (models.Model, model_pb2.Model, {}, set()),
        (models.Prompt, execution_pb2.Prompt, {}, set()),
        (
            models.Settings,
            execution_pb2.ExecutionSettings,
            {"prompt_prefix": "prefix", "prompt_suffix": "suffix"},
            {"output", "aspect_ratio", "image_size"},
        ),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_no_field_of_the_contract_is_forgotten(
    ours: type, message: type, renamed: dict[str, str], left_out: set[str]
) -> None:
    theirs = {renamed.get(field.name, field.name) for field in message.DESCRIPTOR.fields}
    assert {field.name for field in fields(ours)} ^ theirs == left_out


def test_an_execution_is_translated() -> None:
    message = execution_pb2.Execution(
        id="e",
        state=execution_pb2.EXECUTION_STATE_PAUSED,
        pause_reason=execution_pb2.PAUSE_REASON_DAILY_QUOTA,
        model="m",
        max_cost_micros=0,
        labels={"a": "b"},
        revision=7,
        stats=execution_pb2.ExecutionStats(total=3, pending=1, processing=1, completed=1, uncertain_cost_micros=5),
        settings=execution_pb2.ExecutionSettings(
            prompt_prefix="p", output=execution_pb2.OutputOptions(aspect_ratio="1:1"), seed=0
        ),
    )
    message.resume_time.FromDatetime(NOON)
    message.settings.timeout.FromTimedelta(timedelta(seconds=2))
    execution = _translate.execution(message)
    assert (execution.state, execution.pause_reason) == (models.ExecutionState.PAUSED, models.PauseReason.DAILY_QUOTA)
    assert execution.resume_time == NOON
    assert execution.start_time is None
    assert execution.max_cost_micros == 0
    assert execution.stats.left == 2
    assert (execution.settings.prefix, execution.settings.aspect_ratio, execution.settings.seed) == ("p", "1:1", 0)
    assert execution.settings.timeout == timedelta(seconds=2)
    assert _translate.execution(execution_pb2.Execution()).max_cost_micros is None


def test_a_failed_result_says_why() -> None:
    message = execution_pb2.Result(
        id="r", error=execution_pb2.ResultError(code="X", message="m", retryable=True, charged=3)
    )
    assert _translate.result(message).error == models.ResultError(
        "X", "m", retryable=True, charged=models.Charged.MAYBE
    )
    assert _translate.result(execution_pb2.Result()).error is None


def test_updates_are_told_apart() -> None:
    stats = execution_pb2.ExecutionStats(total=4)
    response = execution_service_pb2.WatchExecutionResponse
    progress = execution_pb2.Progress(percent=40, waiting=execution_pb2.Waiting(reason=1))
    light = _translate.update(response(stats=stats, progress=progress))
    assert isinstance(light, models.ProgressUpdate)
    assert light.progress.waiting == models.Waiting(models.WaitReason.RATE_LIMITED)
    assert light.progress.eta is None
    assert (light.revision, light.stats.total) == (0, 4)
    assert isinstance(_translate.update(response(revision=2, result=execution_pb2.Result())), models.ResultUpdate)
    assert isinstance(
        _translate.update(response(revision=3, execution=execution_pb2.Execution())), models.ExecutionUpdate
    )
    assert _translate.update(response(revision=4)) is None


def test_a_request_holds_what_was_given_and_nothing_else() -> None:
    bare = _translate.create_request(["a"], None, "m", (), {})
    assert bare == execution_service_pb2.CreateExecutionRequest(
        model="m", prompts=[execution_pb2.Prompt(text="a")], output=execution_pb2.OutputOptions()
    )
    full = _translate.create_request(None, "a\n\nb", "m", ["i"], {"seed": 0, "timeout": timedelta(minutes=2)})
    assert (full.prompts_text, list(full.reference_image_ids), full.HasField("seed")) == ("a\n\nb", ["i"], True)
    assert full.timeout.seconds == 120


def test_filters_and_kinds_go_back_to_the_wire() -> None:
    assert _translate.result_states([models.ResultState.FAILED, models.ResultState.CANCELLED]) == [4, 5]
    assert _translate.image_kind(models.ImageKind.SOURCE) == image_pb2.IMAGE_KIND_SOURCE
