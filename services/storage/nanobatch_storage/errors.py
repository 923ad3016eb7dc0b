"""What storage refuses, and why: each error is a family of the shared library with a reason of its own."""

from __future__ import annotations

from datetime import timedelta

from nanobatch_runtime.errors import (
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    Kind,
    NanobatchError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)


class ExecutionNotFoundError(NotFoundError):
    """No such execution, or somebody else's."""

    reason = "EXECUTION_NOT_FOUND"

    def __init__(self) -> None:
        """The same words for unknown and foreign ones."""
        super().__init__("There is no such execution.")


class ResultNotFoundError(NotFoundError):
    """No such result, or somebody else's."""

    reason = "RESULT_NOT_FOUND"

    def __init__(self) -> None:
        """The same words for unknown and foreign ones."""
        super().__init__("There is no such result.")


class ImageNotFoundError(NotFoundError):
    """No such image, or somebody else's."""

    reason = "IMAGE_NOT_FOUND"

    def __init__(self) -> None:
        """The same words for unknown and foreign ones."""
        super().__init__("There is no such image.")


class RequestIdReusedError(AlreadyExistsError):
    """The same request id came with other content."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("This request_id was used for another request. Use a new one for a new request.")


class ExecutionFinalError(FailedPreconditionError):
    """It has ended already."""

    reason = "EXECUTION_FINAL"


class ExecutionActiveError(FailedPreconditionError):
    """It has not ended yet."""

    reason = "EXECUTION_ACTIVE"


class KeyNeededError(FailedPreconditionError):
    """Its key was wiped and none was given."""

    reason = "KEY_NEEDED"

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("The provider key of this execution was deleted when it ended. Give the key again.")


class RevisionUnknownError(OutOfRangeError):
    """A watcher asks for what lies ahead of everything."""

    reason = "REVISION_UNKNOWN"


class LeaseLostError(AbortedError):
    """Somebody else holds the result now, or nobody may."""

    reason = "LEASE_LOST"

    def __init__(self) -> None:
        """Say it."""
        super().__init__("This lease is no longer the current one.")


class WindowFullError(ResourceExhaustedError):
    """The bucket has as many calls out as it may have."""

    reason = "WINDOW_FULL"

    def __init__(self, wait: timedelta | None = None) -> None:
        """``wait``: there is a place, but the pace that the provider allows has the next call start only then."""
        if wait is None:
            super().__init__("This key has as many calls out as it may have. Ask again when one of them has ended.")
        else:
            super().__init__("The next call of this key may start a little later.", retry_after=wait)


class BadPictureError(InvalidArgumentError):
    """The bytes are not those that were announced."""

    reason = "PICTURE_MISMATCH"


class UserNotFoundError(NotFoundError):
    """No such user."""

    reason = "USER_NOT_FOUND"

    def __init__(self) -> None:
        """Say it."""
        super().__init__("There is no such user.")


class ImageExistsError(AlreadyExistsError):
    """The id is taken by another picture."""

    reason = "IMAGE_EXISTS"

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("This image id is taken. Use a new one for a new picture.")


class OffsetOutsideError(OutOfRangeError):
    """A picture was asked for from beyond its end on."""

    reason = "RANGE_NOT_SATISFIABLE"

    def __init__(self, size: int) -> None:
        """Say how far it goes."""
        super().__init__(f"The picture has {size} bytes.")


class BlobMissingError(NanobatchError):
    """A row names bytes that are not there: somebody removed them behind storage's back."""

    kind = Kind.DATA_LOSS
    reason = "PICTURE_LOST"

    def __init__(self) -> None:
        """Say it."""
        super().__init__("The bytes of this picture are gone from the picture store.")


class BlobsUnavailableError(UnavailableError):
    """The picture store does not answer, or refuses us. A repeat is safe: a path is written as a whole or not at all."""

    reason = "PICTURE_STORE_UNAVAILABLE"

    def __init__(self, detail: str) -> None:
        """``detail`` is for the log: it names addresses."""
        super().__init__("The picture store cannot be reached right now.")
        self.detail = detail


class DiskFullError(ResourceExhaustedError):
    """There is no room. What was asked for was not done; it can be as soon as there is."""

    reason = "DISK_FULL"

    def __init__(self, what: str) -> None:
        """``what`` lies on the full disk."""
        super().__init__(f"The disk of {what} is full. Free some space; everything goes on by itself then.")


class TokenNotFoundError(NotFoundError):
    """No such token, or somebody else's."""

    reason = "TOKEN_NOT_FOUND"

    def __init__(self) -> None:
        """The same words for unknown and foreign ones."""
        super().__init__("There is no such token.")


class TokenInvalidError(UnauthenticatedError):
    """It opens nothing."""

    reason = "TOKEN_INVALID"

    def __init__(self) -> None:
        """The same words for whatever the cause is: who only guesses learns nothing."""
        super().__init__("This token is not valid: unknown, revoked, or of a disabled user. Ask an admin for another.")


class TokenExpiredError(UnauthenticatedError):
    """It was good once."""

    reason = "TOKEN_EXPIRED"

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("This token has expired. Make another one, or ask an admin for it.")


class TokenShownError(AlreadyExistsError):
    """The same request has made a token already, and it is kept nowhere."""

    reason = "TOKEN_SHOWN"

    def __init__(self, token_id: str) -> None:
        """Say what to do."""
        message = (
            "This request_id has made a token already, and a token is shown only once. If its answer was lost, revoke "
            f"token {token_id} and make another with a new request_id."
        )
        super().__init__(message, metadata={"token_id": token_id})


class AdminTokenTakenError(FailedPreconditionError):
    """The operator's token is that of a user."""

    reason = "ADMIN_TOKEN_TAKEN"

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("NANOBATCH_ADMIN_TOKEN is a token that somebody was given already; set one of its own.")


class AdminOnlyError(PermissionDeniedError):
    """The caller is no admin."""

    reason = "ADMIN_ONLY"

    def __init__(self) -> None:
        """Say it."""
        super().__init__("Only an admin may do this.")


class OwnAccountError(FailedPreconditionError):
    """Admins would lock themselves out."""

    reason = "OWN_ACCOUNT"

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("Admins cannot disable or demote themselves; let another admin do it.")
