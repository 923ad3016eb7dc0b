"""The one table between our errors and HTTP, and the one body that every error has.

``{"success": false, "error": {"code", "message", "fields": [{"field", "message", "reason"}]}}``
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import ClassVar

from starlette.responses import Response

from nanobatch_runtime.errors import (
    InvalidArgumentError,
    Kind,
    NanobatchError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
)

STATUS: Mapping[Kind, int] = {
    Kind.INVALID_ARGUMENT: 400,
    Kind.FAILED_PRECONDITION: 400,
    Kind.OUT_OF_RANGE: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.PERMISSION_DENIED: 403,
    Kind.NOT_FOUND: 404,
    Kind.ABORTED: 409,
    Kind.ALREADY_EXISTS: 409,
    Kind.RESOURCE_EXHAUSTED: 429,
    Kind.CANCELLED: 499,
    Kind.DATA_LOSS: 500,
    Kind.INTERNAL: 500,
    Kind.UNKNOWN: 500,
    Kind.UNIMPLEMENTED: 501,
    Kind.UNAVAILABLE: 503,
    Kind.DEADLINE_EXCEEDED: 504,
}
"""As google/rpc/code.proto maps the codes. An error with ``http_status`` or ``http_headers`` of its own keeps those."""


class RouteNotFoundError(NotFoundError):
    """Nothing is at this address."""

    reason = "ROUTE_NOT_FOUND"


class MethodNotAllowedError(NanobatchError):
    """The address is right, the method is not."""

    kind = Kind.UNIMPLEMENTED
    reason = "METHOD_NOT_ALLOWED"
    http_status: ClassVar[int] = 405

    def __init__(self, allowed: str) -> None:
        """``allowed`` lists the methods that the address takes."""
        super().__init__(f"This address takes {allowed or 'other methods'}.")
        self.http_headers = {"allow": allowed}


class HostNotAllowedError(PermissionDeniedError):
    """The request was meant for another server: a name that only resolves to this address."""

    reason = "HOST_NOT_ALLOWED"


class OriginNotAllowedError(PermissionDeniedError):
    """A page of another site wants to use this server."""

    reason = "ORIGIN_NOT_ALLOWED"


class BodyTooLargeError(ResourceExhaustedError):
    """The request's body is larger than anything that this address takes."""

    reason = "BODY_TOO_LARGE"
    http_status: ClassVar[int] = 413


class BodyTooSlowError(ResourceExhaustedError):
    """The request's body did not come in time."""

    reason = "BODY_TOO_SLOW"
    http_status: ClassVar[int] = 408


class MediaTypeError(InvalidArgumentError):
    """The body has another form than this address takes."""

    reason = "MEDIA_TYPE_NOT_SUPPORTED"
    http_status: ClassVar[int] = 415


class RangeNotSatisfiableError(OutOfRangeError):
    """None of the bytes asked for exist."""

    reason = "RANGE_NOT_SATISFIABLE"
    http_status: ClassVar[int] = 416

    def __init__(self, size: int) -> None:
        """``size`` is how many bytes there are."""
        super().__init__(f"The picture has {size} bytes.")
        self.http_headers = {"content-range": f"bytes */{size}"}


def status_of(error: NanobatchError) -> int:
    """Return the HTTP status of an error."""
    return int(getattr(error, "http_status", STATUS[error.kind]))


def error_response(error: NanobatchError, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer for an error, with the headers that belong to its status."""
    status = status_of(error)
    own: dict[str, str] = {"cache-control": "no-store", **getattr(error, "http_headers", {})}
    if error.retry_after is not None:
        own["retry-after"] = str(max(1, math.ceil(error.retry_after.total_seconds())))
    if error.kind is Kind.UNAUTHENTICATED:
        own["www-authenticate"] = "Bearer"
    return Response(error_body(error), status, {**own, **(headers or {})}, "application/json")


def error_body(error: NanobatchError) -> bytes:
    """Return the JSON that every error has."""
    fields = [{"field": each.field, "message": each.description, "reason": each.reason} for each in error.violations]
    body = {"success": False, "error": {"code": error.reason, "message": error.message, "fields": fields}}
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
