"""Between the public contract, what use cases think in, and what storage is told. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, timedelta

from google.protobuf import duration_pb2

from nanobatch.gateway.v1 import (
    execution_pb2,
    execution_service_pb2,
    image_pb2,
    image_service_pb2,
    model_pb2,
    model_service_pb2,
)
from nanobatch.storage.v1 import common_pb2
from nanobatch.storage.v1 import execution_service_pb2 as storage_pb2
from nanobatch.storage.v1 import image_service_pb2 as storage_image_pb2
from nanobatch_catalog import Model, lifecycle_warnings
from nanobatch_gateway.domain import (
    Caller,
    Estimate,
    ExecutionDraft,
    ExecutionRequest,
    ExportedResult,
    ExportedRun,
    KeyVerdict,
    NewExecution,
    Output,
    Picture,
    PicturesOfResult,
    PromptDraft,
    PromptEdit,
    ResumeDraft,
    RetryDraft,
    SealedKey,
    StoredExecution,
    Update,
    UploadKind,
    WatchMessage,
)
from nanobatch_gateway.file_names import file_stem
from nanobatch_runtime.keyring import Sealed

_LONGEST_SECONDS = 10**9
"""Durations beyond this (31 years) are cut: far out of every range, and `timedelta` cannot hold all that protobuf can."""


# From the public contract.


def execution_draft(request: execution_service_pb2.CreateExecutionRequest) -> ExecutionDraft:
    """Return what a client asks for, unchecked."""
    key = request.WhichOneof("key")
    return ExecutionDraft(
        model=request.model,
        request_id=request.request_id,
        workflow_id=request.workflow_id,
        parent_execution_id=request.parent_execution_id,
        api_key=request.api_key if key == "api_key" else None,
        credential_id=request.credential_id if key == "credential_id" else None,
        prompts_text=request.prompts_text,
        prompts=tuple(
            PromptDraft(
                prompt.text,
                prompt.source_image_id,
                tuple(prompt.reference_image_ids),
                prompt.variations if prompt.HasField("variations") else None,
            )
            for prompt in request.prompts
        ),
        prompt_prefix=request.prompt_prefix,
        prompt_suffix=request.prompt_suffix,
        reference_image_ids=tuple(request.reference_image_ids),
        output=Output(
            request.output.aspect_ratio,
            request.output.image_size,
            request.output.format,
            request.output.match_source_size,
        ),
        variations=request.variations if request.HasField("variations") else None,
        seed=request.seed if request.HasField("seed") else None,
        mode=request.mode,
        max_cost_micros=request.max_cost_micros if request.HasField("max_cost_micros") else None,
        max_attempts=request.max_attempts if request.HasField("max_attempts") else None,
        timeout=_timedelta(request.timeout) if request.HasField("timeout") else None,
        on_unknown=request.on_unknown,
        labels=dict(request.labels),
    )


def resume_draft(request: execution_service_pb2.ResumeExecutionRequest) -> ResumeDraft:
    """Return the resumption that a client asks for, unchecked."""
    key = request.WhichOneof("key")
    return ResumeDraft(
        request.execution_id,
        api_key=request.api_key if key == "api_key" else None,
        credential_id=request.credential_id if key == "credential_id" else None,
        max_cost_micros=request.max_cost_micros if request.HasField("max_cost_micros") else None,
    )


def retry_draft(request: execution_service_pb2.RetryExecutionRequest) -> RetryDraft:
    """Return the retry that a client asks for, unchecked."""
    key = request.WhichOneof("key")
    return RetryDraft(
        request.execution_id,
        request_id=request.request_id,
        result_ids=tuple(request.result_ids),
        edits=tuple(PromptEdit(edit.result_id, edit.text) for edit in request.edits),
        api_key=request.api_key if key == "api_key" else None,
        credential_id=request.credential_id if key == "credential_id" else None,
    )


# To the public contract.


def estimate_response(estimate: Estimate) -> execution_service_pb2.EstimateCostResponse:
    """Return a price as a client gets it."""
    return execution_service_pb2.EstimateCostResponse(
        total_micros=estimate.total_micros,
        per_image_micros=estimate.per_image_micros,
        image_count=estimate.image_count,
        expected_duration=_duration(estimate.expected_duration),
        warnings=estimate.warnings,
    )


def model_message(model: Model, today: date) -> model_pb2.Model:
    """Return a catalogue entry as a client gets it."""
    return model_pb2.Model(
        id=model.id,
        provider=model.provider,
        display_name=model.display_name,
        prices=[model_pb2.ImagePrice(image_size=price.image_size, micros=price.micros) for price in model.prices],
        aspect_ratios=model.aspect_ratios,
        image_sizes=model.image_sizes,
        max_reference_images=model.max_reference_images,
        max_prompt_characters=model.max_prompt_characters,
        default_timeout=_duration(model.default_timeout),
        max_timeout=_duration(model.max_timeout),
        needs_key=model.needs_key,
        retirement_date=model.retirement.isoformat() if model.retirement else "",
        successor=model.successor,
        warnings=lifecycle_warnings(model, today),
        key_url=model.key_url,
    )


def check_key_response(verdict: KeyVerdict) -> model_service_pb2.CheckApiKeyResponse:
    """Return what a provider says of a key as a client gets it."""
    return model_service_pb2.CheckApiKeyResponse(
        valid=verdict.valid, model_available=verdict.model_available, message=verdict.message
    )


def download_message(piece: storage_image_pb2.ReadImageResponse) -> image_service_pb2.DownloadImageResponse:
    """Return a piece of a picture as a client gets it."""
    if piece.WhichOneof("data") == "image":
        return image_service_pb2.DownloadImageResponse(image=piece.image)
    return image_service_pb2.DownloadImageResponse(chunk=piece.chunk)


def exported_run(execution: execution_pb2.Execution, results: Iterable[execution_pb2.Result]) -> ExportedRun:
    """Return an execution as its archive tells of it."""
    return ExportedRun(
        id=execution.id,
        model=execution.model,
        state=execution_pb2.ExecutionState.Name(execution.state).removeprefix("EXECUTION_STATE_"),
        created=execution.create_time.ToDatetime(tzinfo=UTC),
        total_cost_micros=execution.stats.total_cost_micros,
        results=tuple(_exported_result(result) for result in results),
    )


def _exported_result(result: execution_pb2.Result) -> ExportedResult:
    error = result.error
    return ExportedResult(
        id=result.id,
        index=result.batch_index,
        variation=result.variation,
        prompt=result.prompt_text,
        state=execution_pb2.ResultState.Name(result.state).removeprefix("RESULT_STATE_"),
        image_id=result.image_id,
        mime_type=result.mime_type,
        sha256=result.sha256,
        width=result.width,
        height=result.height,
        cost_micros=result.cost_micros,
        uncertain_cost_micros=result.uncertain_cost_micros,
        attempts=result.attempts,
        error={
            "code": error.code,
            "message": error.message,
            "retryable": error.retryable,
            "charged": execution_pb2.Charged.Name(error.charged).removeprefix("CHARGED_"),
        }
        if result.HasField("error")
        else None,
    )


# To and from storage.


def actor(caller: Caller) -> common_pb2.Actor:
    """Return on whose behalf a call is made."""
    return common_pb2.Actor(user_id=caller.user_id, admin=caller.admin)


def encrypted_key(sealed: Sealed) -> common_pb2.EncryptedKey:
    """Return a secret in the form that storage keeps."""
    return common_pb2.EncryptedKey(
        encrypted=sealed.encrypted,
        iv=sealed.iv,
        auth_tag=sealed.auth_tag,
        salt=sealed.salt,
        key_id=sealed.key_id,
        version=sealed.version,
    )


def sealed_secret(stored: common_pb2.EncryptedKey) -> Sealed:
    """Return a secret that storage kept."""
    return Sealed(stored.encrypted, stored.iv, stored.auth_tag, stored.salt, stored.key_id, stored.version)


def new_credential(key: SealedKey | None) -> common_pb2.NewCredential | None:
    """Return a provider key in the form that storage keeps; None stays None."""
    if key is None:
        return None
    return common_pb2.NewCredential(id=key.credential_id, key=encrypted_key(key.sealed), fingerprint=key.fingerprint)


def create_request(caller: Caller, new: NewExecution) -> storage_pb2.CreateExecutionRequest:
    """Return what storage is told about a new execution."""
    request = new.request
    return storage_pb2.CreateExecutionRequest(
        actor=actor(caller),
        request_id=request.request_id,
        request_hash=new.request_hash,
        workflow_id=request.workflow_id,
        parent_execution_id=request.parent_execution_id,
        model=request.model.id,
        provider=request.model.provider,
        settings=_settings(request),
        prompts=[
            storage_pb2.NewPrompt(
                text=prompt.text,
                source_image_id=prompt.source_image_id,
                reference_image_ids=prompt.reference_image_ids,
                variations=prompt.variations,
            )
            for prompt in request.prompts
        ],
        credential=new_credential(new.key),
        estimated_cost_micros=new.estimated_cost_micros,
        max_cost_micros=request.max_cost_micros,
        reservation_micros=new.reservation_micros,
        labels=request.labels,
        mode=execution_pb2.ExecutionMode.ValueType(request.mode),
        fingerprint=new.fingerprint,
    )


def stored_execution(response: storage_pb2.GetExecutionResponse) -> StoredExecution:
    """Return what the gateway must know of a stored execution."""
    settings = response.execution.settings
    return StoredExecution(
        execution=response.execution,
        revision=response.execution.revision,
        model=response.execution.model,
        provider=response.provider,
        user_id=response.user_id,
        prompt_prefix=settings.prompt_prefix,
        prompt_suffix=settings.prompt_suffix,
    )


def watch_update(message: execution_service_pb2.WatchExecutionResponse, changed_at: float) -> Update:
    """Return a step of a watch, serialised; ``message`` is taken apart."""
    kind = message.WhichOneof("update")
    row_id = message.result.id if kind == "result" else message.progress.result_id if kind == "progress" else ""
    stats = execution_service_pb2.WatchExecutionResponse(stats=message.stats).SerializeToString()
    message.ClearField("stats")
    body = message.SerializeToString()
    pictures = pictures_of(message.result) if kind == "result" else None
    return Update(
        message.revision, row_id, WatchMessage(message.revision, body, body + stats, pictures, changed_at), stats
    )


def pictures_of(result: execution_pb2.Result) -> PicturesOfResult | None:
    """Return what the addresses of a result's pictures are made of; None where it has none."""
    if not (result.image_id or result.thumbnail_image_id):
        return None
    name = file_stem(result.batch_index, result.variation, result.prompt_text)
    return PicturesOfResult(result.image_id, result.thumbnail_image_id, name)


def new_image(image_id: str, kind: UploadKind, picture: Picture) -> image_pb2.Image:
    """Return the description of an upload; storage adds the times."""
    return image_pb2.Image(
        id=image_id,
        kind=image_pb2.ImageKind.ValueType(kind),
        mime_type=picture.mime_type,
        width=picture.width,
        height=picture.height,
        size_bytes=picture.size_bytes,
        sha256=picture.sha256,
    )


def _settings(request: ExecutionRequest) -> execution_pb2.ExecutionSettings:
    return execution_pb2.ExecutionSettings(
        prompt_prefix=request.prompt_prefix,
        prompt_suffix=request.prompt_suffix,
        reference_image_ids=request.reference_image_ids,
        output=execution_pb2.OutputOptions(
            aspect_ratio=request.output.aspect_ratio, image_size=request.output.image_size
        ),
        variations=request.variations,
        seed=request.seed,
        max_attempts=request.max_attempts,
        timeout=_duration(request.timeout),
        on_unknown=execution_pb2.UnknownPolicy.ValueType(request.on_unknown),
    )


def _duration(value: timedelta) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromTimedelta(value)
    return message


def _timedelta(message: duration_pb2.Duration) -> timedelta:
    seconds = max(-_LONGEST_SECONDS, min(_LONGEST_SECONDS, message.seconds))
    return timedelta(seconds=seconds, microseconds=message.nanos // 1000)
