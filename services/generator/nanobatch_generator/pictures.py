"""Whether a provider's bytes are a picture: the runtime's checker, in the generator's words."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from nanobatch_generator.domain import CheckedPicture, PictureFacts, PictureRejectedError
from nanobatch_generator.patience import pause
from nanobatch_runtime import pictures

# The child has its own limit per picture; this one also counts the wait for a free child, and a checker that hangs.
_CHECK_SECONDS = 120.0
_TRIES = 4


class Checker(Protocol):
    """What is used of :class:`nanobatch_runtime.pictures.PictureChecker`."""

    async def check(self, path: Path, *, thumbnail: bool = False) -> pictures.Checked:
        """Decode and shrink in a child. Raises PictureError, PictureCheckerUnavailableError."""
        ...


class CheckedPictures:
    """See :class:`nanobatch_generator.ports.Pictures`."""

    def __init__(self, checker: Checker) -> None:
        """``checker`` belongs to the caller."""
        self._checker = checker

    async def check(self, path: Path) -> CheckedPicture:
        """See the port. Raises TimeoutError or PictureCheckerUnavailableError where no child can be had."""
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                checked = await self._check(path)
        except pictures.PictureError as error:
            raise PictureRejectedError(
                error.reason, f"The provider's picture cannot be used: {error.message}"
            ) from error
        if checked.thumbnail is None:
            raise RuntimeError("the checker made no thumbnail")
        return CheckedPicture(_facts(checked.facts), _facts(checked.thumbnail.facts), checked.thumbnail.data)

    async def _check(self, path: Path) -> pictures.Checked:
        tries = 1
        while True:
            try:
                return await self._checker.check(path, thumbnail=True)
            except pictures.PictureCheckerUnavailableError:
                if tries == _TRIES:
                    raise
            await pause(tries)
            tries += 1


def _facts(facts: pictures.PictureFacts) -> PictureFacts:
    return PictureFacts(facts.mime_type, facts.width, facts.height, facts.size_bytes, facts.sha256)
