"""Uploads through the runtime's picture checker, which decodes them in a child process."""

from __future__ import annotations

from pathlib import Path

from nanobatch_gateway.domain import Picture
from nanobatch_runtime.errors import FieldViolation, InvalidArgumentError
from nanobatch_runtime.pictures import PictureChecker, PictureError


class CheckedPictures:
    """See :class:`nanobatch_gateway.ports.Pictures`."""

    def __init__(self, checker: PictureChecker) -> None:
        """Take an open checker; it stays the caller's."""
        self._checker = checker

    async def prepare_upload(self, path: Path, out_path: Path, *, name: str) -> Picture:
        """See :class:`nanobatch_gateway.ports.Pictures`; the reason is the checker's own, like NOT_A_PICTURE."""
        try:
            facts = await self._checker.prepare_upload(path, out_path)
        except PictureError as error:
            sentence = f"{name}: {error.message}"
            raise InvalidArgumentError(
                sentence,
                reason=error.reason,
                metadata=error.metadata,
                violations=[FieldViolation("chunk", sentence, error.reason)],
            ) from None
        return Picture(facts.mime_type, facts.width, facts.height, facts.size_bytes, facts.sha256)
