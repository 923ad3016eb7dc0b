"""What can go wrong, by class. Every error carries the stable reason that the server gave (see docs/api.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field: its path as in the proto (``prompts[3].text``), a sentence, and a stable reason."""

    field: str
    description: str
    reason: str = ""


class NanobatchError(Exception):
    """Base of all errors that a call can end in.

    Attributes:
        code: name of the gRPC status code.
        message: a sentence for people; never holds a key.
        reason: stable word for programs, like ``KEY_NEEDED``.
        retryable: whether the same call may succeed later. Repeat only what is safe to repeat.
        violations: the bad fields, where the request was refused for them.
        metadata: further facts of the server, like ``revision``.
        retry_after: how long the server asks to wait, or None.
    """

    code: ClassVar[str] = "UNKNOWN"
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        """``reason`` defaults to the status code's name."""
        super().__init__(message)
        self.message = message
        self.reason = reason or self.code
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after


class InvalidRequestError(NanobatchError):
    """The request is wrong whatever the state of the server; ``violations`` name the fields."""

    code = "INVALID_ARGUMENT"


class OutOfRangeError(NanobatchError):
    """A position that does not exist, like a revision that the server has never given out."""

    code = "OUT_OF_RANGE"


class NotFoundError(NanobatchError):
    """There is no such thing, or it is not yours: the same answer."""

    code = "NOT_FOUND"


class ConflictError(NanobatchError):
    """The ``request_id`` or name is taken by something else."""

    code = "ALREADY_EXISTS"


class AbortedError(ConflictError):
    """Somebody else was quicker."""

    code = "ABORTED"
    retryable = True


class FailedPreconditionError(NanobatchError):
    """The request is fine, the state is not: change that first."""

    code = "FAILED_PRECONDITION"


class RateLimitedError(NanobatchError):
    """A limit is reached; wait ``retry_after`` where it is given."""

    code = "RESOURCE_EXHAUSTED"
    retryable = True


class UnauthenticatedError(NanobatchError):
    """The server does not know who is calling: the token is missing or wrong."""

    code = "UNAUTHENTICATED"


class PermissionDeniedError(NanobatchError):
    """The caller is known and may not do this."""

    code = "PERMISSION_DENIED"


class UnavailableError(NanobatchError):
    """Not now."""

    code = "UNAVAILABLE"
    retryable = True


class UnreachableError(UnavailableError):
    """Nobody answered at all: no server there, or the connection broke."""


class DeadlineExceededError(NanobatchError):
    """No answer in time; whether the call was carried out is unknown."""

    code = "DEADLINE_EXCEEDED"
    retryable = True


class UnsupportedError(NanobatchError):
    """The server does not have this call."""

    code = "UNIMPLEMENTED"


class CancelledCallError(NanobatchError):
    """Something between here and the server cancelled the call."""

    code = "CANCELLED"


class DataLossError(NanobatchError):
    """Stored data is damaged."""

    code = "DATA_LOSS"


class IntegrityError(DataLossError):
    """The bytes that arrived are not those that were promised; nothing was kept."""


class InternalError(NanobatchError):
    """Something went wrong on the server's side; ``metadata["incident"]`` finds it in its log."""

    code = "INTERNAL"


BY_CODE: Mapping[str, type[NanobatchError]] = {
    cls.code: cls
    for cls in (
        InvalidRequestError,
        OutOfRangeError,
        NotFoundError,
        ConflictError,
        AbortedError,
        FailedPreconditionError,
        RateLimitedError,
        UnauthenticatedError,
        PermissionDeniedError,
        UnavailableError,
        DeadlineExceededError,
        UnsupportedError,
        CancelledCallError,
        DataLossError,
        InternalError,
    )
}
"""The class of each status code; a code that is not in it (UNKNOWN) is a :class:`NanobatchError`."""
