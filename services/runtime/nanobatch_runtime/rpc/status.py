"""The one table between our errors and what goes over the wire, in both directions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from nanobatch_runtime.errors import FieldViolation, Kind, NanobatchError, RemoteError

DOMAIN = "nanobatch"

# Details travel in a trailer, and clients accept 8 KiB of metadata by default (gRPC core): more would turn a clear
# answer into "received trailing metadata size exceeds limit".
MAX_DETAIL_BYTES = 5 * 1024

_DETAILS_KEY = "grpc-status-details-bin"


def to_proto(error: NanobatchError) -> status_pb2.Status:
    """Return the wire form: code, sentence, ``ErrorInfo``, and ``BadRequest`` and ``RetryInfo`` where they apply."""
    status = status_pb2.Status(code=code_pb2.Code.Value(error.kind.value), message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    status.details.append(_packed(info))
    if error.violations:
        status.details.append(_packed(_bad_request(error.violations)))
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromTimedelta(error.retry_after)
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def from_rpc_error(error: grpc.RpcError) -> RemoteError:
    """Return what another service answered; without details (a proxy, a dead peer) the reason is the code's name."""
    code: grpc.StatusCode = error.code()
    kind = Kind[code.name] if code.name in Kind.__members__ else Kind.UNKNOWN
    message = error.details() or code.name
    proto = _details(error)
    reason = code.name
    metadata: dict[str, str] = {}
    violations: list[FieldViolation] = []
    retry_after: timedelta | None = None
    if proto is not None:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        for detail in proto.details:
            if detail.Unpack(info):
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad):
                violations = [FieldViolation(v.field, v.description, v.reason) for v in bad.field_violations]
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.ToTimedelta()
    return RemoteError(kind, message, reason=reason, metadata=metadata, violations=violations, retry_after=retry_after)


def _details(error: grpc.RpcError) -> status_pb2.Status | None:
    trailers: Any = error.trailing_metadata() or ()  # pairs; grpc's stubs are not sure
    for key, value in trailers:
        if key == _DETAILS_KEY:
            return status_pb2.Status.FromString(value)
    return None


def _bad_request(violations: tuple[FieldViolation, ...]) -> error_details_pb2.BadRequest:
    bad = error_details_pb2.BadRequest()
    for number, violation in enumerate(violations):
        bad.field_violations.add(field=violation.field, description=violation.description, reason=violation.reason)
        if bad.ByteSize() > MAX_DETAIL_BYTES:
            del bad.field_violations[-1]
            bad.field_violations.add(
                field=violation.field,
                description=f"This field and {len(violations) - number - 1} more are wrong; correct the others first.",
                reason="MORE_VIOLATIONS",
            )
            break
    return bad


def _packed(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
