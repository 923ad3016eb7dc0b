"""The folder that pictures go to: names kept, nothing overwritten, nothing fetched twice."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from nanobatch_client.cli import manifest, names
from nanobatch_client.errors import NanobatchError
from nanobatch_client.models import Execution, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nanobatch_client.client import Client

_AT_ONCE = 4
"""Downloads at a time: enough to keep up with a run, few enough to leave the watch its share of the connection."""


class PictureFolder:
    """Fetches pictures in the background. To be entered before use; leaving it early cancels what is still coming.

    A name that another picture has already stays that picture's; ours gets ``-2``, ``-3``, ... before its extension, and
    a note says so. A file with our very bytes is kept as it is.
    """

    def __init__(
        self, path: Path, client: Client, *, note: Callable[[str], None], saved: Callable[[Path], None]
    ) -> None:
        """``saved`` hears of every picture once it is there."""
        self.path = path
        self.files: dict[str, str] = {}
        """File names by result id."""
        self.problems: dict[str, str] = {}
        """Why a picture is not there, by result id."""
        self._client = client
        self._note = note
        self._saved = saved
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        """Nothing to do: tasks come with pictures."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what is still coming and wait until it has cleaned up."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def offer(self, result: Result) -> None:
        """Begin to fetch a result's picture, unless it has none, is here or is on its way.

        A cancelled result may have one too: it came late, was paid for and is kept.
        """
        if result.state.is_final and result.image_id and result.id not in self._tasks:
            self._tasks[result.id] = asyncio.create_task(self._fetch(result))

    async def settle(self, results: Sequence[Result]) -> None:
        """Wait until all pictures of ``results`` are here; what failed before is tried once more."""
        await self._all_fetched()
        for result_id in self.problems:
            del self._tasks[result_id]
        self.problems.clear()
        for result in results:
            self.offer(result)
        await self._all_fetched()

    async def _all_fetched(self) -> None:
        await asyncio.gather(*self._tasks.values())

    async def _fetch(self, result: Result) -> None:
        async with self._slots:
            try:
                path = await self._place(result)
            except (NanobatchError, OSError) as error:
                self.problems[result.id] = f"{names.file_name(result)} could not be saved: {error}"
                return
        self.files[result.id] = path.name
        self._saved(path)

    async def _place(self, result: Result) -> Path:
        number = 0
        while True:
            number += 1
            path = self.path / names.numbered(names.file_name(result), number)
            there = await asyncio.to_thread(_sha256, path)
            if there == result.sha256:
                return path
            if there is not None:
                continue
            try:
                await self._client.download_image(result.image_id, path)
            except FileExistsError:  # somebody was quicker: look at what they put there
                number -= 1
                continue
            if number > 1:
                self._note(f"{names.file_name(result)} is another picture already; this one is {path.name}")
            return path

    def write_manifest(self, execution: Execution, results: Sequence[Result]) -> Path:
        """Write the manifest for what is here now."""
        return manifest.write(self.path, manifest.build(execution, results, self.files))


def prepare(path: Path) -> None:
    """Make the folder and see that it can be written to, before anything is paid. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f".{secrets.token_hex(6)}.part"
    probe.touch()
    probe.unlink()


def _sha256(path: Path) -> str | None:
    """Return the hash of what has this name; None: nothing has it; empty: something that is no readable file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "" if path.is_symlink() else None
    except OSError:
        return ""
