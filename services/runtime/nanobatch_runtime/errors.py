"""Families of errors. A domain error subclasses one of them; the class carries its kind and a stable reason.

The wire form (status, ``google.rpc`` details) is made in one place, :mod:`nanobatch_runtime.rpc.status`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import ClassVar


class Kind(Enum):
    """What sort of failure it is; the value is the gRPC status code's name."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    CANCELLED = "CANCELLED"
    DATA_LOSS = "DATA_LOSS"
    INTERNAL = "INTERNAL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field: its path as in the proto (``prompts[3].text``), a sentence, and a stable reason."""

    field: str
    description: str
    reason: str = "INVALID"


class NanobatchError(Exception):
    """A failure that is part of the interface: its message is a sentence for the caller."""

    kind: ClassVar[Kind] = Kind.INTERNAL
    reason: str = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        """``retry_after`` becomes ``RetryInfo``, ``violations`` ``BadRequest``, ``metadata`` part of ``ErrorInfo``."""
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations: tuple[FieldViolation, ...] = tuple(violations)
        self.retry_after = retry_after


class InvalidArgumentError(NanobatchError):
    """The request is wrong whatever the state of the system."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"


class NotFoundError(NanobatchError):
    """There is no such thing, or the caller may not see it: the same answer."""

    kind = Kind.NOT_FOUND
    reason = "NOT_FOUND"


class AlreadyExistsError(NanobatchError):
    """The name is taken by something else."""

    kind = Kind.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class FailedPreconditionError(NanobatchError):
    """The request is fine, the state is not: change that first."""

    kind = Kind.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class AbortedError(NanobatchError):
    """Somebody else was quicker."""

    kind = Kind.ABORTED
    reason = "ABORTED"


class OutOfRangeError(NanobatchError):
    """A position that does not exist."""

    kind = Kind.OUT_OF_RANGE
    reason = "OUT_OF_RANGE"


class ResourceExhaustedError(NanobatchError):
    """A limit is reached."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class UnauthenticatedError(NanobatchError):
    """Nobody knows who is calling."""

    kind = Kind.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDeniedError(NanobatchError):
    """The caller is known and may not do this."""

    kind = Kind.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class UnavailableError(NanobatchError):
    """Not now; a repeat is safe."""

    kind = Kind.UNAVAILABLE
    reason = "UNAVAILABLE"


class RemoteError(NanobatchError):
    """An error that another service answered with, as it came over the wire."""

    def __init__(self, kind: Kind, message: str, **details: object) -> None:
        """``details`` are the keyword arguments of :class:`NanobatchError`."""
        super().__init__(message, **details)  # type: ignore[arg-type]  # forwarded as they are
        self._kind = kind

    @property
    def kind(self) -> Kind:  # type: ignore[override]  # here it belongs to the instance: it came over the wire
        """The kind that the other side gave."""
        return self._kind
