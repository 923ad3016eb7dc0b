# ruff: noqa: ASYNC240  # small files of a temporary folder
"""An upload lies in a private file while it is checked, and nowhere after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nanobatch_gateway.domain import (
    LOCAL_CALLER,
    Caller,
    Picture,
    StorageUnavailableError,
    UploadKind,
    UploadTooSlowError,
)
from nanobatch_gateway.uploads import UploadImage

FACTS = Picture("image/png", 1, 1, 3, "0" * 64)


class NosyPictures:
    """Looks at the file it is given, and leaves things behind like a killed check would."""

    def __init__(self) -> None:
        self.modes: tuple[int, int] = (0, 0)
        self.data = b""

    async def prepare_upload(self, path: Path, out_path: Path, *, name: str) -> Picture:
        self.modes = (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777)
        self.data = path.read_bytes()
        out_path.write_bytes(self.data)
        out_path.with_name(".clean.part").write_bytes(b"left behind")
        return FACTS


class Images:
    """Takes pictures, or is down."""

    def __init__(self, *, down: bool = False) -> None:
        self.down = down
        self.taken: list[bytes] = []

    async def put(self, caller: Caller, image_id: str, kind: UploadKind, picture: Picture, path: Path) -> Any:
        if self.down:
            raise StorageUnavailableError("Storage cannot be reached.")
        self.taken.append(path.read_bytes())
        return image_id


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def upload(pictures: Any, images: Any, folder: Path, **options: Any) -> UploadImage:
    return UploadImage(pictures, images, folder, **options)


async def test_the_file_is_private_and_goes_after_the_upload(tmp_path: Path) -> None:
    pictures, images = NosyPictures(), Images()
    await upload(pictures, images, tmp_path)(LOCAL_CALLER, 0, "cat.png", chunks(b"a", b"", b"bc"))
    assert pictures.modes == (0o600, 0o700)
    assert pictures.data == b"abc"
    assert images.taken == [b"abc"]
    assert not list(tmp_path.iterdir())


async def test_nothing_stays_where_storage_is_down(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailableError):
        await upload(NosyPictures(), Images(down=True), tmp_path)(LOCAL_CALLER, 0, "", chunks(b"a"))
    assert not list(tmp_path.iterdir())


async def test_bytes_that_do_not_come_are_not_waited_for(tmp_path: Path) -> None:
    async def silent() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()

    limited = upload(NosyPictures(), Images(), tmp_path, time_limit=timedelta(milliseconds=50))
    with pytest.raises(UploadTooSlowError):
        await limited(LOCAL_CALLER, 0, "", silent())
    assert not list(tmp_path.iterdir())
