"""Protobuf to models and back; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from nanobatch.gateway.v1 import (
    account_pb2,
    analytics_service_pb2,
    execution_pb2,
    execution_service_pb2,
    image_pb2,
    model_pb2,
    server_stats_pb2,
    usage_pb2,
)
from nanobatch_client import _numbers, models

E = TypeVar("E", bound=Enum)


def _enum(kind: type[E], name: Callable[[Any], str], number: int, prefix: str) -> E:
    """Return the member for a number; one that a newer server has and we do not is UNSPECIFIED, never an error."""
    try:
        return kind[name(number).removeprefix(prefix)]
    except (ValueError, KeyError):
        return kind["UNSPECIFIED"]


def _time(message: Message, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(tzinfo=UTC)


def _duration(message: Message, field: str) -> timedelta | None:
    if not message.HasField(field):
        return None
    duration: Duration = getattr(message, field)
    return duration.ToTimedelta()


def user(message: account_pb2.User) -> models.User:
    """A user."""
    return models.User(
        id=message.id,
        name=message.name,
        role=_enum(models.Role, account_pb2.Role.Name, message.role, "ROLE_"),
        disabled=message.disabled,
        daily_cap_micros=message.daily_cap_micros if message.HasField("daily_cap_micros") else None,
        create_time=_time(message, "create_time"),
    )


def token(message: account_pb2.Token) -> models.Token:
    """What is known of a token."""
    return models.Token(
        id=message.id,
        user_id=message.user_id,
        name=message.name,
        prefix=message.prefix,
        create_time=_time(message, "create_time"),
        expire_time=_time(message, "expire_time"),
        revoke_time=_time(message, "revoke_time"),
        last_use_time=_time(message, "last_use_time"),
    )


def stats(message: execution_pb2.ExecutionStats) -> models.Stats:
    """Counts and money."""
    return models.Stats(
        total=message.total,
        pending=message.pending,
        processing=message.processing,
        completed=message.completed,
        failed=message.failed,
        cancelled=message.cancelled,
        completion_percentage=message.completion_percentage,
        total_cost_micros=message.total_cost_micros,
        uncertain_cost_micros=message.uncertain_cost_micros,
    )


def settings(message: execution_pb2.ExecutionSettings) -> models.Settings:
    """The common settings of an execution."""
    return models.Settings(
        prefix=message.prompt_prefix,
        suffix=message.prompt_suffix,
        reference_image_ids=tuple(message.reference_image_ids),
        aspect_ratio=message.output.aspect_ratio,
        image_size=message.output.image_size,
        variations=message.variations,
        seed=message.seed if message.HasField("seed") else None,
        max_attempts=message.max_attempts,
        timeout=_duration(message, "timeout"),
        on_unknown=_enum(models.UnknownPolicy, execution_pb2.UnknownPolicy.Name, message.on_unknown, "UNKNOWN_POLICY_"),
    )


def execution(message: execution_pb2.Execution) -> models.Execution:
    """An execution."""
    return models.Execution(
        id=message.id,
        state=_enum(models.ExecutionState, execution_pb2.ExecutionState.Name, message.state, "EXECUTION_STATE_"),
        model=message.model,
        stats=stats(message.stats),
        pause_reason=_enum(models.PauseReason, execution_pb2.PauseReason.Name, message.pause_reason, "PAUSE_REASON_"),
        resume_time=_time(message, "resume_time"),
        workflow_id=message.workflow_id,
        parent_execution_id=message.parent_execution_id,
        mode=_enum(models.ExecutionMode, execution_pb2.ExecutionMode.Name, message.mode, "EXECUTION_MODE_"),
        estimated_cost_micros=message.estimated_cost_micros,
        max_cost_micros=message.max_cost_micros if message.HasField("max_cost_micros") else None,
        create_time=_time(message, "create_time"),
        start_time=_time(message, "start_time"),
        end_time=_time(message, "end_time"),
        labels=dict(message.labels),
        settings=settings(message.settings),
        revision=message.revision,
        cover_thumbnail_image_id=message.cover_thumbnail_image_id,
        cover_thumbnail_url=message.cover_thumbnail_url,
    )


def _waiting(message: execution_pb2.Result | execution_pb2.Progress) -> models.Waiting | None:
    if not message.HasField("waiting"):
        return None
    reason = _enum(models.WaitReason, execution_pb2.WaitReason.Name, message.waiting.reason, "WAIT_REASON_")
    return models.Waiting(reason, _time(message.waiting, "until"))


def _error(message: execution_pb2.Result) -> models.ResultError | None:
    if not message.HasField("error"):
        return None
    error = message.error
    charged = _enum(models.Charged, execution_pb2.Charged.Name, error.charged, "CHARGED_")
    return models.ResultError(error.code, error.message, error.retryable, charged)


def result(message: execution_pb2.Result) -> models.Result:
    """A result."""
    return models.Result(
        id=message.id,
        execution_id=message.execution_id,
        batch_index=message.batch_index,
        variation=message.variation,
        prompt_text=message.prompt_text,
        state=_enum(models.ResultState, execution_pb2.ResultState.Name, message.state, "RESULT_STATE_"),
        image_id=message.image_id,
        master_image_id=message.master_image_id,
        thumbnail_image_id=message.thumbnail_image_id,
        image_url=message.image_url,
        thumbnail_url=message.thumbnail_url,
        width=message.width,
        height=message.height,
        mime_type=message.mime_type,
        sha256=message.sha256,
        attempts=message.attempts,
        error=_error(message),
        processing_time=_duration(message, "processing_time"),
        cost_micros=message.cost_micros,
        uncertain_cost_micros=message.uncertain_cost_micros,
        waiting=_waiting(message),
        revision=message.revision,
        source_image_id=message.source_image_id,
        reference_image_ids=tuple(message.reference_image_ids),
    )


def update(message: execution_service_pb2.WatchExecutionResponse) -> models.Update | None:
    """One step of a watch; None for a kind that this version does not know."""
    now = stats(message.stats)
    match message.WhichOneof("update"):
        case "execution":
            return models.ExecutionUpdate(message.revision, now, execution(message.execution))
        case "result":
            return models.ResultUpdate(message.revision, now, result(message.result))
        case "progress":
            light = message.progress
            progress = models.Progress(light.result_id, light.percent, _duration(light, "eta"), _waiting(light))
            return models.ProgressUpdate(now, progress)
        case _:
            return None


def estimate(message: execution_service_pb2.EstimateCostResponse) -> models.Estimate:
    """A price."""
    return models.Estimate(
        total_micros=message.total_micros,
        per_image_micros=message.per_image_micros,
        image_count=message.image_count,
        expected_duration=_duration(message, "expected_duration"),
        warnings=tuple(message.warnings),
    )


def image(message: image_pb2.Image) -> models.Image:
    """A picture's description."""
    return models.Image(
        id=message.id,
        kind=_enum(models.ImageKind, image_pb2.ImageKind.Name, message.kind, "IMAGE_KIND_"),
        mime_type=message.mime_type,
        width=message.width,
        height=message.height,
        size_bytes=message.size_bytes,
        sha256=message.sha256,
        create_time=_time(message, "create_time"),
        expire_time=_time(message, "expire_time"),
        url=message.image_url,
    )


def model(message: model_pb2.Model) -> models.Model:
    """A model."""
    return models.Model(
        id=message.id,
        provider=message.provider,
        display_name=message.display_name,
        prices=tuple(models.ImagePrice(price.image_size, price.micros) for price in message.prices),
        aspect_ratios=tuple(message.aspect_ratios),
        image_sizes=tuple(message.image_sizes),
        max_reference_images=message.max_reference_images,
        max_prompt_characters=message.max_prompt_characters,
        default_timeout=_duration(message, "default_timeout"),
        max_timeout=_duration(message, "max_timeout"),
        needs_key=message.needs_key,
        retirement_date=message.retirement_date,
        successor=message.successor,
        warnings=tuple(message.warnings),
        key_url=message.key_url,
    )


def server_stats(message: server_stats_pb2.ServerStats) -> models.ServerStats:
    """How the server is doing."""
    return models.ServerStats(
        read_time=message.read_time.ToDatetime(tzinfo=UTC),
        results_ready=message.results_ready,
        results_later=message.results_later,
        results_cooling=message.results_cooling,
        results_in_flight=message.results_in_flight,
        leases_expired=message.leases_expired,
        oldest_ready_time=_time(message, "oldest_ready_time"),
        executions_active=message.executions_active,
        executions_paused={paused.reason: paused.count for paused in message.executions_paused},
        cooling_keys=tuple(
            models.CoolingKey(key.provider, key.model, key.reason, key.until_time.ToDatetime(tzinfo=UTC), key.results)
            for key in message.cooling_keys
        ),
        generators={seen.name: seen.last_seen_time.ToDatetime(tzinfo=UTC) for seen in message.generators},
        tasks_out=message.tasks_out,
        tasks=tuple(
            models.TaskOut(
                task.provider,
                task.task_id,
                task.execution_id,
                task.submit_time.ToDatetime(tzinfo=UTC),
                task.timeout.ToTimedelta(),
            )
            for task in message.tasks
        ),
    )


def usage_report(message: analytics_service_pb2.GetUsageResponse) -> models.UsageReport:
    """Usage by group and altogether."""
    return models.UsageReport(
        rows=tuple(
            models.UsageRow(
                usage=_usage(row.usage),
                day=date.fromisoformat(row.day) if row.day else None,
                model=row.model,
                outcome=row.outcome,
            )
            for row in message.rows
        ),
        totals=_usage(message.totals),
        start=_time(message, "start_time"),
        end=_time(message, "end_time"),
    )


def _usage(message: usage_pb2.Usage) -> models.Usage:
    return models.Usage(
        pictures=message.pictures,
        attempts=message.attempts,
        cost_micros=message.cost_micros,
        uncertain_micros=message.uncertain_micros,
        latency_p50=_duration(message, "latency_p50"),
        latency_p90=_duration(message, "latency_p90"),
        latency_p99=_duration(message, "latency_p99"),
    )


def result_states(states: Sequence[models.ResultState]) -> list[execution_pb2.ResultState.ValueType]:
    """The wire form of a filter."""
    return [execution_pb2.ResultState.Value(f"RESULT_STATE_{state.name}") for state in states]


def image_kind(kind: models.ImageKind) -> image_pb2.ImageKind.ValueType:
    """The wire form of a kind."""
    return image_pb2.ImageKind.Value(f"IMAGE_KIND_{kind.name}")


def _prompt(prompt: str | models.Prompt) -> execution_pb2.Prompt:
    if isinstance(prompt, str):
        return execution_pb2.Prompt(text=prompt)
    return execution_pb2.Prompt(
        text=prompt.text,
        source_image_id=prompt.source_image_id,
        reference_image_ids=prompt.reference_image_ids,
        variations=prompt.variations,
    )


def create_request(
    prompts: Sequence[str | models.Prompt] | None,
    prompts_text: str | None,
    model: str,
    reference_image_ids: Sequence[str],
    options: models.RunOptions,
) -> execution_service_pb2.CreateExecutionRequest:
    """The request for a run, without key and ``request_id``. What is not given stays unset: the server's default.

    Raises InvalidRequestError for numbers that it cannot hold.
    """
    if isinstance(prompts, str):
        raise TypeError("prompts is a list of prompts; give one text with a prompt per paragraph as prompts_text")
    given: Mapping[str, Any] = options
    unknown_policy = given.get("on_unknown", models.UnknownPolicy.UNSPECIFIED)
    numbers = {name: given.get(name) for name in ("variations", "seed", "max_cost_micros", "max_attempts")}
    violations = _numbers.too_large(execution_service_pb2.CreateExecutionRequest, numbers)
    for index, prompt in enumerate(prompts or ()):
        if isinstance(prompt, models.Prompt):
            own = {"variations": prompt.variations}
            violations += _numbers.too_large(execution_pb2.Prompt, own, f"prompts[{index}].")
    _numbers.require_room(violations)
    request = execution_service_pb2.CreateExecutionRequest(
        workflow_id=given.get("workflow_id", ""),
        model=model,
        prompts_text=prompts_text or "",
        prompts=[_prompt(prompt) for prompt in prompts or ()],
        prompt_prefix=given.get("prefix", ""),
        prompt_suffix=given.get("suffix", ""),
        reference_image_ids=reference_image_ids,
        output=execution_pb2.OutputOptions(
            aspect_ratio=given.get("aspect_ratio", ""), image_size=given.get("image_size", "")
        ),
        variations=given.get("variations"),
        seed=given.get("seed"),
        max_cost_micros=given.get("max_cost_micros"),
        max_attempts=given.get("max_attempts"),
        on_unknown=execution_pb2.UnknownPolicy.Value(f"UNKNOWN_POLICY_{unknown_policy.name}"),
        parent_execution_id=given.get("parent_execution_id", ""),
        labels=given.get("labels", {}),
    )
    timeout = given.get("timeout")
    if timeout is not None:
        request.timeout.FromTimedelta(timeout)
    return request
