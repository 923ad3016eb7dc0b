"""Loops that tidy up behind everybody: each pass is safe to run anywhere, any number of times, on any replica."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog

from nanobatch_runtime.clock import Clock
from nanobatch_runtime.lifecycle import cancel
from nanobatch_storage.ports import Blobs, Images

_log = structlog.get_logger("nanobatch.sweep")

ORPHAN_GRACE = timedelta(hours=1)
"""Bytes are written before their row: whatever is younger may still get one."""
_BATCH = 100


@dataclass(frozen=True, slots=True)
class Pass:
    """Something to be done again and again: ``run``, with ``every`` between the end of one and the next."""

    name: str
    run: Callable[[], Awaitable[object]]
    every: timedelta = timedelta(seconds=5)


@asynccontextmanager
async def sweeping(passes: Sequence[Pass]) -> AsyncIterator[None]:
    """Run the passes while the context is open, each in a loop of its own: a slow one holds up no other.

    A pass that fails is logged and comes again; the loop never dies.
    """
    async with AsyncExitStack() as stack:
        for one in passes:
            task: asyncio.Task[object] = asyncio.create_task(_repeat(one), name=f"sweep-{one.name}")
            stack.push_async_callback(cancel, task)
        yield


async def _repeat(one: Pass) -> None:
    while True:
        try:
            await one.run()
        except Exception as error:  # noqa: BLE001  # a database that is away for a minute must not end the tidying
            _log.warning("sweep.failed", sweep=one.name, error=type(error).__name__, detail=str(error)[:200])
        await asyncio.sleep(one.every.total_seconds())


async def collect_garbage() -> None:
    """Collect what only the collector can free, also where little happens.

    A try to connect that was given up lies in a cycle with its error, and its socket stays open until then: an outage
    would leave sessions at the database that nobody uses, beyond those of the pool.
    """
    gc.collect()


async def remove_expired_uploads(images: Images, blobs: Blobs) -> int:
    """Remove uploads that nothing has used in their time: rows first, then bytes. Returns how many."""
    removed = 0
    while expired := await images.take_expired(_BATCH):
        removed += len(expired)
        for image in expired:
            await blobs.delete(image.blob_path)
    if removed:
        _log.info("uploads.removed", count=removed)
    return removed


class Orphans:
    """Bytes that no row names, and that go once two passes have found them so.

    One pass is not enough: age goes by the machine's clock. Where that is set forward by an hour, the bytes of a
    completion that is just under way look old, and its row comes a moment later.
    """

    def __init__(self, images: Images, blobs: Blobs, clock: Clock, grace: timedelta = ORPHAN_GRACE) -> None:
        """``clock`` is the one that files go by; what is younger than ``grace`` is left alone."""
        self._images, self._blobs, self._clock, self._grace = images, blobs, clock, grace
        self._found: set[str] = set()

    async def remove(self) -> int:
        """Remove what the pass before has found already, and is as it was. Returns how many."""
        removed, before, found = 0, self._clock.now() - self._grace, set[str]()
        async for paths in self._blobs.older_than(before):
            for orphan in sorted(set(paths) - await self._images.named(paths)):
                if orphan not in self._found:
                    found.add(orphan)
                # Looked up again just before: a repeated completion may have written it anew, and named it, meanwhile.
                elif orphan not in await self._images.named([orphan]):
                    removed += await self._blobs.delete_if_older(orphan, before)
        self._found = found
        if removed:
            _log.info("orphans.removed", count=removed)
        return removed
