"""Statuses as the gateway sends them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from nanobatch_client.errors import Violation


def make_status(
    code: str,
    message: str = "as scripted",
    *,
    reason: str | None = None,
    metadata: Mapping[str, str] | None = None,
    violations: Sequence[Violation] = (),
    retry_after: timedelta | None = None,
) -> status_pb2.Status:
    """Return a status as the gateway sends it; without ``reason`` there are no details, as from a proxy."""
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message=message)
    details: list[Message] = []
    if reason is not None:
        details.append(error_details_pb2.ErrorInfo(reason=reason, domain="nanobatch", metadata=metadata or {}))
    if violations:
        bad = error_details_pb2.BadRequest()
        for violation in violations:
            bad.field_violations.add(field=violation.field, description=violation.description, reason=violation.reason)
        details.append(bad)
    if retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(retry_after)
        details.append(retry)
    for detail in details:
        status.details.add().Pack(detail)
    return status
