"""Lease messages: protobuf to domain and back."""

from __future__ import annotations

from datetime import timedelta

from nanobatch.gateway.v1 import execution_pb2, image_pb2
from nanobatch.storage.v1 import lease_service_pb2 as pb
from nanobatch_runtime.errors import InvalidArgumentError
from nanobatch_runtime.ids import is_id
from nanobatch_storage import policy
from nanobatch_storage.domain import Charged, Failure, FailureClass, ImageKind, Lease, LeaseRef, NewPicture, Usage
from nanobatch_storage.translate import encrypted_key_to_proto, output_to_proto


def ref_from_proto(message: pb.LeaseRef) -> LeaseRef:
    """Return the domain's form."""
    return LeaseRef(message.result_id, message.lease_id)


def ref_to_proto(ref: LeaseRef) -> pb.LeaseRef:
    """Return the wire form."""
    return pb.LeaseRef(result_id=ref.result_id, lease_id=ref.lease_id)


def lease_to_proto(lease: Lease) -> pb.Lease:
    """Return the wire form; the prompt is put together here, prefix and suffix with one space between."""
    execution, result, settings = lease.execution, lease.result, lease.execution.settings
    parts = (settings.prompt_prefix, result.prompt_text, settings.prompt_suffix)
    message = pb.Lease(
        result_id=result.id,
        lease_id=result.lease_id or "",
        execution_id=execution.id,
        user_id=execution.user_id,
        batch_index=result.batch_index,
        variation=result.variation,
        model=execution.model,
        provider=execution.provider,
        prompt=" ".join(part for part in parts if part),
        source_image_id=result.source_image_id or "",
        reference_image_ids=result.reference_image_ids or settings.reference_image_ids,
        output=output_to_proto(settings.output),
        seed=settings.seed,
        bucket_id=execution.bucket_id,
        check_key=lease.check_key,
        attempts=result.attempts,
        crashes=result.crashes,
        standby=lease.standby,
        roomy=lease.roomy,
        suspect=policy.is_suspect(result),
        origin_request_id=execution.origin_request_id or "",
        origin_traceparent=execution.origin_traceparent or "",
    )
    message.timeout.FromMilliseconds(settings.timeout_ms)
    message.lease_duration.FromTimedelta(lease.duration)
    if result.lease_expires_at is not None:
        message.expire_time.FromDatetime(result.lease_expires_at)
    if lease.job is not None:
        message.job.attempt_id, message.job.task_id = lease.job.attempt_id, lease.job.task_id
        message.job.elapsed.FromTimedelta(lease.job.elapsed)
    if lease.credential is not None:
        credential_id, key = lease.credential
        message.credential.id = credential_id
        message.credential.user_id = execution.user_id
        message.credential.key.CopyFrom(encrypted_key_to_proto(key))
    return message


def picture_from_proto(message: pb.NewImage) -> NewPicture:
    """Return the domain's form. Raises InvalidArgumentError for a kind this version does not know."""
    kind = image_pb2.ImageKind.Name(message.kind).removeprefix("IMAGE_KIND_")
    if kind not in ImageKind.__members__ or not is_id(message.id):
        raise InvalidArgumentError("A picture needs an id and a kind.")
    return NewPicture(
        id=message.id,
        kind=ImageKind[kind],
        mime_type=message.mime_type,
        width=message.width,
        height=message.height,
        size_bytes=message.size_bytes,
        sha256=message.sha256,
    )


def usage_from_proto(message: pb.Usage) -> Usage:
    """Return the domain's form."""
    return Usage(
        input_tokens=message.input_tokens,
        text_output_tokens=message.text_output_tokens,
        image_output_tokens=message.image_output_tokens,
        cost_micros=message.cost_micros,
        reported=message.reported,
    )


def failure_from_proto(message: pb.Failure) -> Failure:
    """Return the domain's form. Raises InvalidArgumentError for a class this version does not know."""
    name = pb.FailureClass.Name(message.failure_class).removeprefix("FAILURE_CLASS_")
    charged = execution_pb2.Charged.Name(message.charged).removeprefix("CHARGED_")
    if name not in FailureClass.__members__:
        raise InvalidArgumentError("A failure needs a class.")
    return Failure(
        failure_class=FailureClass[name],
        code=message.code or name,
        message=message.message,
        charged=Charged[charged] if charged in Charged.__members__ else Charged.MAYBE,
        usage=usage_from_proto(message.usage),
        retry_after=message.retry_after.ToTimedelta() if message.HasField("retry_after") else None,
        provider_status=message.provider_status,
        provider_response_id=message.provider_response_id,
        processing_ms=milliseconds(message.processing_time.ToTimedelta())
        if message.HasField("processing_time")
        else None,
    )


def milliseconds(duration: timedelta) -> int:
    """Return whole milliseconds."""
    return round(duration / timedelta(milliseconds=1))
