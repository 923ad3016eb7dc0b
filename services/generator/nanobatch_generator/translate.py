"""protobuf to domain and back; pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from nanobatch.gateway.v1 import execution_pb2, image_pb2
from nanobatch.generator.v1 import generator_service_pb2
from nanobatch.storage.v1 import common_pb2, execution_service_pb2, lease_service_pb2
from nanobatch_generator.domain import (
    Completion,
    Estimate,
    Failure,
    FinishedPicture,
    Latency,
    Lease,
    LeasedCredential,
    LeaseRef,
    OpenJob,
    Update,
    Usage,
    Viewer,
    Waiting,
)
from nanobatch_runtime.keyring import Sealed


def duration(value: timedelta) -> Duration:
    """Return the protobuf form."""
    message = Duration()
    message.FromTimedelta(value)
    return message


def ref_to_proto(ref: LeaseRef) -> lease_service_pb2.LeaseRef:
    """Return the protobuf form."""
    return lease_service_pb2.LeaseRef(result_id=ref.result_id, lease_id=ref.lease_id)


def ref_from_proto(message: lease_service_pb2.LeaseRef) -> LeaseRef:
    """Return the domain form."""
    return LeaseRef(message.result_id, message.lease_id)


def lease_from_proto(message: lease_service_pb2.Lease) -> Lease:
    """Return the domain form."""
    return Lease(
        ref=LeaseRef(message.result_id, message.lease_id),
        duration=message.lease_duration.ToTimedelta(),
        execution_id=message.execution_id,
        user_id=message.user_id,
        model=message.model,
        provider=message.provider,
        prompt=message.prompt,
        timeout=message.timeout.ToTimedelta(),
        bucket_id=message.bucket_id,
        check_key=message.check_key,
        credential=_credential(message.credential) if message.HasField("credential") else None,
        source_image_id=message.source_image_id,
        reference_image_ids=tuple(message.reference_image_ids),
        aspect_ratio=message.output.aspect_ratio,
        image_size=message.output.image_size,
        seed=message.seed if message.HasField("seed") else None,
        attempts=message.attempts,
        standby=message.standby,
        roomy=message.roomy,
        suspect=message.suspect,
        job=_job(message.job) if message.HasField("job") else None,
        origin_request_id=message.origin_request_id,
        origin_traceparent=message.origin_traceparent,
    )


def _job(message: lease_service_pb2.OpenJob) -> OpenJob:
    return OpenJob(message.attempt_id, message.task_id, message.elapsed.ToTimedelta())


def _credential(message: lease_service_pb2.LeasedCredential) -> LeasedCredential:
    key = message.key
    sealed = Sealed(key.encrypted, key.iv, key.auth_tag, key.salt, key.key_id, key.version)
    return LeasedCredential(message.id, message.user_id, sealed)


def usage_to_proto(usage: Usage) -> lease_service_pb2.Usage:
    """Return the protobuf form."""
    return lease_service_pb2.Usage(
        input_tokens=usage.input_tokens,
        text_output_tokens=usage.text_output_tokens,
        image_output_tokens=usage.image_output_tokens,
        cost_micros=usage.cost_micros,
        reported=usage.reported,
    )


def failure_to_proto(failure: Failure) -> lease_service_pb2.Failure:
    """Return the protobuf form."""
    message = lease_service_pb2.Failure(
        failure_class=lease_service_pb2.FailureClass.Value(f"FAILURE_CLASS_{failure.failure_class.name}"),
        code=failure.code,
        message=failure.message,
        charged=execution_pb2.Charged.Value(f"CHARGED_{failure.charged.name}"),
        provider_status=failure.provider_status,
        provider_response_id=failure.response_id,
        processing_time=duration(failure.processing_time),
    )
    if failure.usage is not None:
        message.usage.CopyFrom(usage_to_proto(failure.usage))
    if failure.retry_after is not None:
        message.retry_after.FromTimedelta(failure.retry_after)
    return message


def header_to_proto(completion: Completion) -> lease_service_pb2.CompletionHeader:
    """Return what comes before the bytes."""
    return lease_service_pb2.CompletionHeader(
        lease=ref_to_proto(completion.ref),
        attempt_id=completion.attempt_id,
        images=[_image(picture) for picture in completion.pictures],
        usage=usage_to_proto(completion.usage),
        processing_time=duration(completion.processing_time),
        provider_response_id=completion.response_id,
    )


def _image(picture: FinishedPicture) -> lease_service_pb2.NewImage:
    return lease_service_pb2.NewImage(
        id=picture.id,
        kind=image_pb2.ImageKind.Value(f"IMAGE_KIND_{picture.kind.name}"),
        mime_type=picture.facts.mime_type,
        width=picture.facts.width,
        height=picture.facts.height,
        size_bytes=picture.facts.size_bytes,
        sha256=picture.facts.sha256,
    )


def state_name(state: execution_pb2.ResultState.ValueType) -> str:
    """Return the name of a result's state, as ``COMPLETED``."""
    return execution_pb2.ResultState.Name(state).removeprefix("RESULT_STATE_")


def viewer_from_proto(actor: common_pb2.Actor) -> Viewer:
    """Return the domain form."""
    return Viewer(actor.user_id, actor.admin)


def viewer_to_proto(viewer: Viewer) -> common_pb2.Actor:
    """Return the protobuf form."""
    return common_pb2.Actor(user_id=viewer.user_id, admin=viewer.admin)


def latency_from_proto(message: execution_service_pb2.GetLatencyResponse) -> Latency:
    """Return the domain form."""
    return Latency(message.sample_count, message.median.ToTimedelta(), message.p95.ToTimedelta())


def update_from_proto(message: execution_service_pb2.WatchChangesResponse) -> Update:
    """Return the domain form; its message is what a watcher will be sent, made here once."""
    update = message.update
    kind = update.WhichOneof("update")
    row_id, waiting = "", None
    if kind == "result":
        row_id = update.result.id
        waiting = _waiting_from_proto(update.result.waiting) if update.result.HasField("waiting") else None
    elif kind == "progress":
        row_id = update.progress.result_id
    changed = message.change_time if message.HasField("change_time") else None
    return Update(
        revision=update.revision,
        row_id=row_id,
        message=generator_service_pb2.WatchProgressResponse(update=update, change_time=changed),
        stats=update.stats,
        processing=update.stats.processing,
        running=kind == "result" and update.result.state == execution_pb2.RESULT_STATE_PROCESSING,
        waiting=waiting,
    )


def _waiting_from_proto(message: execution_pb2.Waiting) -> Waiting:
    until: datetime | None = message.until.ToDatetime(UTC) if message.HasField("until") else None
    return Waiting(message.reason, until)


def _waiting_to_proto(waiting: Waiting) -> execution_pb2.Waiting:
    reason = cast("execution_pb2.WaitReason.ValueType", waiting.reason)
    message = execution_pb2.Waiting(reason=reason)
    if waiting.until is not None:
        until = Timestamp()
        until.FromDatetime(waiting.until)
        message.until.CopyFrom(until)
    return message


class WatchMessages:
    """Makes what watchers are sent."""

    def with_stats(self, message: object, stats: object) -> object:
        """See :class:`nanobatch_generator.ports.Messages`."""
        copy = generator_service_pb2.WatchProgressResponse()
        copy.CopyFrom(cast("generator_service_pb2.WatchProgressResponse", message))
        copy.update.stats.CopyFrom(cast("execution_pb2.ExecutionStats", stats))
        return copy

    def progress(self, estimate: Estimate, stats: object) -> object:
        """See :class:`nanobatch_generator.ports.Messages`."""
        counts = cast("execution_pb2.ExecutionStats", stats)
        message = generator_service_pb2.WatchProgressResponse()
        message.update.stats.CopyFrom(counts)
        progress = message.update.progress
        progress.result_id = estimate.result_id
        progress.percent = estimate.percent if estimate.result_id else min(99, counts.completion_percentage)
        if estimate.eta is not None:
            progress.eta.FromTimedelta(estimate.eta)
        if estimate.waiting is not None:
            progress.waiting.CopyFrom(_waiting_to_proto(estimate.waiting))
        return message
