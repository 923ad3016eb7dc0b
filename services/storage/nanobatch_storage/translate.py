"""Executions and keys: protobuf to domain and back. Beside it: ``translate_images``, ``translate_leases``."""

from __future__ import annotations

from datetime import datetime, timedelta

from google.protobuf import timestamp_pb2

from nanobatch.gateway.v1 import execution_pb2
from nanobatch.gateway.v1.execution_service_pb2 import WatchExecutionResponse
from nanobatch.storage.v1 import common_pb2, execution_service_pb2
from nanobatch_runtime.errors import FieldViolation, InvalidArgumentError
from nanobatch_storage.domain import (
    Actor,
    EncryptedKey,
    Execution,
    NewCredential,
    NewExecution,
    NewPrompt,
    OutputOptions,
    Result,
    ResultState,
    Settings,
    UnknownPolicy,
    Waiting,
)
from nanobatch_storage.views import Change, ListedExecution, ResultView, Retry, WaitingNotice

_MILLISECOND = timedelta(milliseconds=1)


def actor_from_proto(message: common_pb2.Actor) -> Actor:
    """Return the domain's form."""
    return Actor(message.user_id, admin=message.admin)


def actor_to_proto(actor: Actor) -> common_pb2.Actor:
    """Return the wire form."""
    return common_pb2.Actor(user_id=actor.user_id, admin=actor.admin)


def encrypted_key_from_proto(message: common_pb2.EncryptedKey) -> EncryptedKey:
    """Return the domain's form."""
    return EncryptedKey(
        encrypted=message.encrypted,
        iv=message.iv,
        auth_tag=message.auth_tag,
        salt=message.salt,
        key_id=message.key_id,
        version=message.version,
    )


def encrypted_key_to_proto(key: EncryptedKey) -> common_pb2.EncryptedKey:
    """Return the wire form."""
    return common_pb2.EncryptedKey(
        encrypted=key.encrypted,
        iv=key.iv,
        auth_tag=key.auth_tag,
        salt=key.salt,
        key_id=key.key_id,
        version=key.version,
    )


def credential_from_proto(message: common_pb2.NewCredential) -> NewCredential:
    """Return the domain's form."""
    return NewCredential(message.id, encrypted_key_from_proto(message.key), message.fingerprint)


def output_from_proto(message: execution_pb2.OutputOptions) -> OutputOptions:
    """Return the domain's form."""
    return OutputOptions(
        aspect_ratio=message.aspect_ratio,
        image_size=message.image_size,
        format=message.format,
        match_source_size=message.match_source_size,
    )


def output_to_proto(output: OutputOptions) -> execution_pb2.OutputOptions:
    """Return the wire form."""
    return execution_pb2.OutputOptions(
        aspect_ratio=output.aspect_ratio,
        image_size=output.image_size,
        format=output.format,
        match_source_size=output.match_source_size,
    )


def settings_from_proto(message: execution_pb2.ExecutionSettings) -> Settings:
    """Return the domain's form; the gateway has filled in every default."""
    on_unknown = execution_pb2.UnknownPolicy.Name(message.on_unknown).removeprefix("UNKNOWN_POLICY_")
    return Settings(
        prompt_prefix=message.prompt_prefix,
        prompt_suffix=message.prompt_suffix,
        reference_image_ids=tuple(message.reference_image_ids),
        output=output_from_proto(message.output),
        variations=message.variations,
        seed=message.seed if message.HasField("seed") else None,
        max_attempts=message.max_attempts,
        timeout_ms=round(message.timeout.ToTimedelta() / _MILLISECOND),
        on_unknown=UnknownPolicy(on_unknown) if on_unknown in UnknownPolicy.__members__ else UnknownPolicy.RETRY,
    )


def settings_to_proto(settings: Settings) -> execution_pb2.ExecutionSettings:
    """Return the wire form."""
    message = execution_pb2.ExecutionSettings(
        prompt_prefix=settings.prompt_prefix,
        prompt_suffix=settings.prompt_suffix,
        reference_image_ids=settings.reference_image_ids,
        output=output_to_proto(settings.output),
        variations=settings.variations,
        seed=settings.seed,
        max_attempts=settings.max_attempts,
        on_unknown=execution_pb2.UnknownPolicy.Value(f"UNKNOWN_POLICY_{settings.on_unknown}"),
    )
    message.timeout.FromMilliseconds(settings.timeout_ms)
    return message


def new_execution_from_proto(message: execution_service_pb2.CreateExecutionRequest) -> NewExecution:
    """Return the domain's form."""
    return NewExecution(
        model=message.model,
        provider=message.provider,
        settings=settings_from_proto(message.settings),
        prompts=tuple(
            NewPrompt(
                text=prompt.text,
                source_image_id=prompt.source_image_id or None,
                reference_image_ids=tuple(prompt.reference_image_ids),
                variations=prompt.variations,
            )
            for prompt in message.prompts
        ),
        fingerprint=message.fingerprint or message.credential.fingerprint,
        credential=credential_from_proto(message.credential) if message.HasField("credential") else None,
        request_id=message.request_id or None,
        request_hash=message.request_hash,
        workflow_id=message.workflow_id or None,
        parent_execution_id=message.parent_execution_id or None,
        estimated_cost_micros=message.estimated_cost_micros,
        max_cost_micros=message.max_cost_micros if message.HasField("max_cost_micros") else None,
        reservation_micros=message.reservation_micros,
        labels=dict(message.labels),
        mode=_mode_from_proto(message.mode),
    )


def retry_from_proto(message: execution_service_pb2.RetryExecutionRequest) -> Retry:
    """Return the domain's form."""
    return Retry(
        request_id=message.request_id or None,
        request_hash=message.request_hash,
        result_ids=tuple(message.result_ids),
        credential=credential_from_proto(message.credential) if message.HasField("credential") else None,
        edits=tuple((edit.result_id, edit.text) for edit in message.edits),
    )


def states_from_proto(values: list[execution_pb2.ResultState.ValueType]) -> tuple[ResultState, ...]:
    """Return the domain's form. Raises InvalidArgumentError for a state that this version does not know."""
    known = {execution_pb2.ResultState.Value(f"RESULT_STATE_{state}"): state for state in ResultState}
    violations = [
        FieldViolation(f"states[{i}]", "There is no such state.", "UNKNOWN_STATE")
        for i, value in enumerate(values)
        if value not in known
    ]
    if violations:
        raise InvalidArgumentError("The request names a state that does not exist.", violations=violations)
    return tuple(known[value] for value in values)


def execution_to_proto(execution: Execution) -> execution_pb2.Execution:
    """Return the wire form."""
    message = execution_pb2.Execution(
        id=execution.id,
        workflow_id=execution.workflow_id,
        parent_execution_id=execution.parent_execution_id or "",
        state=execution_pb2.ExecutionState.Value(f"EXECUTION_STATE_{execution.state}"),
        pause_reason=execution_pb2.PauseReason.Value(f"PAUSE_REASON_{execution.pause_reason or 'UNSPECIFIED'}"),
        model=execution.model,
        mode=execution_pb2.ExecutionMode.Value(f"EXECUTION_MODE_{execution.mode}"),
        stats=stats_to_proto(execution),
        estimated_cost_micros=execution.estimated_cost_micros,
        max_cost_micros=execution.max_cost_micros,
        labels=execution.labels,
        revision=execution.revision,
        settings=settings_to_proto(execution.settings),
    )
    _set_time(message.create_time, execution.create_time)
    if execution.resume_time is not None:
        _set_time(message.resume_time, execution.resume_time)
    if execution.start_time is not None:
        _set_time(message.start_time, execution.start_time)
    if execution.end_time is not None:
        _set_time(message.end_time, execution.end_time)
    return message


def listed_to_proto(listed: ListedExecution) -> execution_pb2.Execution:
    """Return the wire form. The gateway adds the address of the cover."""
    message = execution_to_proto(listed.execution)
    message.cover_thumbnail_image_id = listed.cover_id or ""
    return message


def stats_to_proto(execution: Execution) -> execution_pb2.ExecutionStats:
    """Return the counts and the money of an execution; 100 percent only when every result is final."""
    final = execution.completed + execution.failed + execution.cancelled
    return execution_pb2.ExecutionStats(
        total=execution.total,
        pending=execution.pending,
        processing=execution.processing,
        completed=execution.completed,
        failed=execution.failed,
        cancelled=execution.cancelled,
        completion_percentage=final * 100 // execution.total,
        total_cost_micros=execution.cost_micros,
        uncertain_cost_micros=execution.uncertain_micros,
    )


def result_to_proto(shown: ResultView) -> execution_pb2.Result:
    """Return the wire form. The gateway adds the addresses of the pictures."""
    result = shown.result
    message = execution_pb2.Result(
        id=result.id,
        execution_id=result.execution_id,
        batch_index=result.batch_index,
        variation=result.variation,
        prompt_text=result.prompt_text,
        state=execution_pb2.ResultState.Value(f"RESULT_STATE_{result.state}"),
        image_id=result.image_id or "",
        master_image_id=result.master_image_id or "",
        thumbnail_image_id=result.thumbnail_image_id or "",
        width=result.width,
        height=result.height,
        mime_type=result.mime_type,
        sha256=result.sha256,
        attempts=result.attempts,
        cost_micros=result.cost_micros,
        uncertain_cost_micros=result.uncertain_micros,
        revision=result.revision,
        source_image_id=result.source_image_id or "",
        reference_image_ids=result.reference_image_ids,
    )
    if result.state is ResultState.FAILED:
        message.error.CopyFrom(_error_to_proto(result))
    if result.processing_ms is not None:
        message.processing_time.FromMilliseconds(result.processing_ms)
    if shown.waiting is not None:
        message.waiting.CopyFrom(waiting_to_proto(shown.waiting))
    return message


def waiting_to_proto(waiting: Waiting) -> execution_pb2.Waiting:
    """Return the wire form."""
    message = execution_pb2.Waiting(reason=execution_pb2.WaitReason.Value(f"WAIT_REASON_{waiting.reason}"))
    if waiting.until is not None:
        _set_time(message.until, waiting.until)
    return message


def change_to_proto(change: Change) -> WatchExecutionResponse:
    """Return the wire form."""
    message = WatchExecutionResponse(revision=change.revision, stats=stats_to_proto(change.execution))
    match change.what:
        case Execution():
            message.execution.CopyFrom(execution_to_proto(change.what))
        case ResultView():
            message.result.CopyFrom(result_to_proto(change.what))
        case WaitingNotice(waiting):
            message.progress.SetInParent()
            if waiting is not None:
                message.progress.waiting.CopyFrom(waiting_to_proto(waiting))
    return message


def _mode_from_proto(value: execution_pb2.ExecutionMode.ValueType) -> str:
    name = execution_pb2.ExecutionMode.Name(value).removeprefix("EXECUTION_MODE_")
    return "STANDARD" if name == "UNSPECIFIED" else name


def _error_to_proto(result: Result) -> execution_pb2.ResultError:
    return execution_pb2.ResultError(
        code=result.error_code,
        message=result.error_message,
        retryable=result.error_retryable,
        charged=execution_pb2.Charged.Value(f"CHARGED_{result.error_charged or 'UNSPECIFIED'}"),
    )


def _set_time(message: timestamp_pb2.Timestamp, time: datetime) -> None:
    message.FromDatetime(time)
