"""Loops that tidy up behind everybody: each pass is safe to run anywhere, any number of times, on any replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

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


async def remove_orphans(images: Images, blobs: Blobs, now: datetime, grace: timedelta = ORPHAN_GRACE) -> int:
    """Remove bytes that no row names and that are older than the grace. Returns how many."""
    removed, before = 0, now - grace
    async for paths in blobs.older_than(before):
        for orphan in sorted(set(paths) - await images.named(paths)):
            # Looked up again just before: a repeated completion may have written it anew, and named it, meanwhile.
            if orphan not in await images.named([orphan]):
                removed += await blobs.delete_if_older(orphan, before)
    if removed:
        _log.info("orphans.removed", count=removed)
    return removed
