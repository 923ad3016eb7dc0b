"""Protobuf to domain and back, without loss."""

from __future__ import annotations

import uuid
from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest

from nanobatch.gateway.v1 import execution_pb2, image_pb2
from nanobatch.storage.v1 import common_pb2, execution_service_pb2
from nanobatch_runtime.errors import InvalidArgumentError
from nanobatch_storage import translate, translate_images
from nanobatch_storage.domain import (
    Actor,
    Charged,
    EncryptedKey,
    Execution,
    ExecutionState,
    ImageKind,
    OutputOptions,
    PauseReason,
    Result,
    ResultState,
    Settings,
    UnknownPolicy,
    Waiting,
    WaitReason,
)
from nanobatch_storage.views import Change, ResultView, WaitingNotice

TIME = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
SETTINGS = Settings(
    prompt_prefix="before",
    prompt_suffix="after",
    reference_image_ids=("a", "b"),
    output=OutputOptions("16:9", "2K", "png", match_source_size=True),
    variations=4,
    seed=0,
    max_attempts=5,
    timeout_ms=90_500,
    on_unknown=UnknownPolicy.FAIL,
)


def filled(kind, **values):
    """An object whose plain fields hold something recognisable."""
    defaults = {"str": "", "int": 0, "bool": False, "datetime": TIME}
    made = {field.name: defaults.get(str(field.type)) for field in fields(kind)}
    return kind(**{**made, **values})


def execution(**values):
    base = {
        "id": "e", "workflow_id": "w", "state": ExecutionState.PROCESSING, "settings": SETTINGS, "labels": {"k": "v"},
        "mode": "STANDARD", "total": 3, "pending": 1, "failed": 1, "completed": 1, "revision": 9, "own_revision": 8,
        "cost_micros": 5, "uncertain_micros": 6, "create_time": TIME, "estimated_cost_micros": 4, "model": "m",
    }  # fmt: skip
    return filled(Execution, **{**base, **values})


def result(**values):
    base = {"id": "r", "execution_id": "e", "batch_index": 2, "state": ResultState.PENDING, "reference_image_ids": ()}
    return filled(Result, **{**base, **values})


@pytest.mark.parametrize("settings", [SETTINGS, Settings(), replace(SETTINGS, seed=None)])
def test_settings_survive_the_way_there_and_back(settings):
    assert translate.settings_from_proto(translate.settings_to_proto(settings)) == settings


def test_keys_survive_the_way_there_and_back():
    key = EncryptedKey(b"\x00\xff", b"i" * 12, b"t" * 16, b"s" * 16, "0123456789abcdef", 1)
    assert translate.encrypted_key_from_proto(translate.encrypted_key_to_proto(key)) == key


@pytest.mark.parametrize("kind", ImageKind)
def test_images_survive_the_way_there_and_back(kind):
    message = image_pb2.Image(
        id=str(uuid.uuid4()), kind=image_pb2.ImageKind.Value(f"IMAGE_KIND_{kind}"), mime_type="image/webp",
        width=3, height=4, size_bytes=5, sha256="6",
    )  # fmt: skip
    image = translate_images.image_from_proto(message, Actor("user"))
    assert (image.user_id, image.kind) == ("user", kind)
    back = translate_images.image_to_proto(replace(image, create_time=TIME))
    assert back.create_time.ToDatetime(UTC) == TIME
    assert not back.HasField("expire_time")
    back.ClearField("create_time")
    assert back == message


def test_an_image_without_a_kind_is_refused():
    with pytest.raises(InvalidArgumentError):
        translate_images.image_from_proto(image_pb2.Image(id="x"), Actor("user"))


@pytest.mark.parametrize("state", ExecutionState)
def test_every_state_of_an_execution_has_its_word(state):
    message = translate.execution_to_proto(execution(state=state))
    assert execution_pb2.ExecutionState.Name(message.state) == f"EXECUTION_STATE_{state}"
    assert message.pause_reason == execution_pb2.PAUSE_REASON_UNSPECIFIED


@pytest.mark.parametrize("reason", PauseReason)
def test_every_pause_has_its_word_and_its_end(reason):
    message = translate.execution_to_proto(execution(pause_reason=reason, resume_time=TIME, max_cost_micros=0))
    assert execution_pb2.PauseReason.Name(message.pause_reason) == f"PAUSE_REASON_{reason}"
    assert message.resume_time.ToDatetime(UTC) == TIME
    assert message.HasField("max_cost_micros")
    assert not message.HasField("start_time")
    assert not message.HasField("end_time")


def test_an_execution_is_told_whole():
    message = translate.execution_to_proto(execution(start_time=TIME, end_time=TIME, parent_execution_id="p"))
    assert (message.id, message.workflow_id, message.parent_execution_id, message.model) == ("e", "w", "p", "m")
    assert (message.revision, dict(message.labels), message.estimated_cost_micros) == (9, {"k": "v"}, 4)
    assert message.start_time.ToDatetime(UTC) == message.end_time.ToDatetime(UTC) == TIME
    assert not message.HasField("max_cost_micros")
    stats = message.stats
    assert (stats.total, stats.pending, stats.completed, stats.failed, stats.completion_percentage) == (3, 1, 1, 1, 66)
    assert (stats.total_cost_micros, stats.uncertain_cost_micros) == (5, 6)


@pytest.mark.parametrize("state", ResultState)
def test_every_state_of_a_result_has_its_word_and_errors_belong_to_failed_ones(state):
    shown = ResultView(result(state=state, error_code="X", error_message="No.", error_charged=Charged.MAYBE), None)
    message = translate.result_to_proto(shown)
    assert execution_pb2.ResultState.Name(message.state) == f"RESULT_STATE_{state}"
    assert message.HasField("error") == (state is ResultState.FAILED)
    assert translate.states_from_proto([message.state]) == (state,)


@pytest.mark.parametrize("reason", WaitReason)
def test_a_result_says_why_it_waits(reason):
    message = translate.result_to_proto(ResultView(result(processing_ms=1500), Waiting(reason, TIME)))
    assert execution_pb2.WaitReason.Name(message.waiting.reason) == f"WAIT_REASON_{reason}"
    assert message.waiting.until.ToDatetime(UTC) == TIME
    assert message.processing_time.ToTimedelta().total_seconds() == 1.5
    forever = translate.result_to_proto(ResultView(result(), Waiting(reason, None)))
    assert not forever.waiting.HasField("until")
    assert not forever.HasField("processing_time")


def test_states_that_do_not_exist_are_named():
    with pytest.raises(InvalidArgumentError) as caught:
        translate.states_from_proto([execution_pb2.RESULT_STATE_FAILED, execution_pb2.RESULT_STATE_UNSPECIFIED, 77])
    assert [violation.field for violation in caught.value.violations] == ["states[1]", "states[2]"]


def test_every_change_carries_the_counts():
    one = execution()
    for what, name in (
        (one, "execution"),
        (ResultView(result(), None), "result"),
        (WaitingNotice(Waiting(WaitReason.OVERLOADED, TIME)), "progress"),
        (WaitingNotice(None), "progress"),
    ):
        message = translate.change_to_proto(Change(7, one, what))
        assert (message.revision, message.stats.total, message.WhichOneof("update")) == (7, 3, name)
    assert not message.progress.HasField("waiting")


def test_a_request_for_an_execution_becomes_the_domains():
    key = common_pb2.NewCredential(id="c", fingerprint="f", key=common_pb2.EncryptedKey(key_id="k", version=1))
    message = execution_service_pb2.CreateExecutionRequest(
        request_id="r", request_hash="h", model="m", provider="p", settings=translate.settings_to_proto(SETTINGS),
        prompts=[{"text": "t", "source_image_id": "s", "reference_image_ids": ["x"], "variations": 2}, {"text": "u"}],
        credential=key, estimated_cost_micros=1, max_cost_micros=0, reservation_micros=3, labels={"k": "v"},
        mode=execution_pb2.EXECUTION_MODE_ECONOMY, fingerprint="f", workflow_id="w", parent_execution_id="e",
    )  # fmt: skip
    new = translate.new_execution_from_proto(message)
    assert (new.request_id, new.request_hash, new.model, new.provider, new.mode) == ("r", "h", "m", "p", "ECONOMY")
    assert (new.estimated_cost_micros, new.max_cost_micros, new.reservation_micros) == (1, 0, 3)
    assert (new.workflow_id, new.parent_execution_id, new.labels, new.fingerprint) == ("w", "e", {"k": "v"}, "f")
    assert new.settings == SETTINGS
    assert new.credential == translate.credential_from_proto(key)
    first, second = new.prompts
    assert (first.text, first.source_image_id, first.reference_image_ids, first.variations) == ("t", "s", ("x",), 2)
    assert (second.source_image_id, second.reference_image_ids) == (None, ())
    bare = translate.new_execution_from_proto(execution_service_pb2.CreateExecutionRequest())
    assert (bare.request_id, bare.credential, bare.max_cost_micros, bare.workflow_id) == (None, None, None, None)
    assert bare.mode == "STANDARD"


def test_a_request_for_a_retry_becomes_the_domains():
    message = execution_service_pb2.RetryExecutionRequest(
        request_id="r", request_hash="h", result_ids=["a", "b"], edits=[{"result_id": "a", "text": "t"}]
    )
    retry = translate.retry_from_proto(message)
    assert (retry.request_id, retry.request_hash, retry.result_ids, retry.edits) == (
        "r",
        "h",
        ("a", "b"),
        (("a", "t"),),
    )
    assert retry.credential is None
