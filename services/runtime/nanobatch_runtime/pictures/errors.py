"""Why a picture is not taken: each with a plain sentence and a stable reason."""

from __future__ import annotations

from nanobatch_runtime.errors import InvalidArgumentError, UnavailableError


class PictureError(InvalidArgumentError):
    """The picture is not taken; sending the same bytes again ends the same way."""

    reason = "PICTURE_REFUSED"


class NotAPictureError(PictureError):
    """By its content the file is neither PNG nor JPEG nor WebP, whatever its name says."""

    reason = "NOT_A_PICTURE"


class PictureTooLargeError(PictureError):
    """Too many pixels or bytes; nothing was decoded."""

    reason = "PICTURE_TOO_LARGE"


class PictureAnimatedError(PictureError):
    """The file holds more than one frame."""

    reason = "PICTURE_ANIMATED"


class PictureDamagedError(PictureError):
    """Cut off or broken: its pixels cannot all be decoded."""

    reason = "PICTURE_DAMAGED"


class PictureCheckFailedError(PictureError):
    """The picture cost the child its life or a limit; ``metadata["cause"]`` is ``TIME``, ``MEMORY`` or ``DIED``."""

    reason = "PICTURE_CHECK_FAILED"


class PictureCheckerUnavailableError(UnavailableError):
    """No child can be had at the moment: says nothing about the picture."""

    reason = "PICTURE_CHECKER_UNAVAILABLE"


REASONS: dict[str, type[PictureError]] = {
    kind.reason: kind
    for kind in (
        NotAPictureError,
        PictureTooLargeError,
        PictureAnimatedError,
        PictureDamagedError,
        PictureCheckFailedError,
    )
}
"""How a child's answer becomes an error again."""
