"""Pictures nobody trusts: what came from a provider or a user is decoded in a child process, never in this one.

``async with PictureChecker() as checker: checked = await checker.check(path, thumbnail=True)``; the same work without
a child, for benchmarks, is in :mod:`nanobatch_runtime.pictures.work`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nanobatch_runtime.pictures.errors import (
    NotAPictureError,
    PictureAnimatedError,
    PictureCheckerUnavailableError,
    PictureCheckFailedError,
    PictureDamagedError,
    PictureError,
    PictureTooLargeError,
)
from nanobatch_runtime.pictures.facts import Checked, PictureFacts, PictureLimits, Thumbnail

if TYPE_CHECKING:
    from nanobatch_runtime.pictures.checker import PictureChecker

__all__ = [
    "Checked",
    "NotAPictureError",
    "PictureAnimatedError",
    "PictureCheckFailedError",
    "PictureChecker",
    "PictureCheckerUnavailableError",
    "PictureDamagedError",
    "PictureError",
    "PictureFacts",
    "PictureLimits",
    "PictureTooLargeError",
    "Thumbnail",
]


def __getattr__(name: str) -> Any:
    # The child imports this package too, and has no use for asyncio: the checker is loaded when somebody asks for it.
    if name == "PictureChecker":
        from nanobatch_runtime.pictures.checker import PictureChecker  # noqa: PLC0415 - see above

        return PictureChecker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
