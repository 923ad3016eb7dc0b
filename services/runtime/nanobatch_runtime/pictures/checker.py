"""A few child processes that check pictures, and the queue in front of them.

Each child is an interpreter of its own on ``python -m nanobatch_runtime.pictures.child``, spoken to in lines of JSON,
rather than a worker of a process pool, because of what the pools do:

* killing one *idle* worker broke a whole ``pebble.ProcessPool`` for good ("All workers expired"), and with it the
  pictures of others; its workers share one pipe and its locks, ours share nothing;
* ``multiprocessing`` imports the parent's ``__main__`` into each child (grpc and the service with it: 39 MiB instead
  of half of that) and hands it the whole environment, provider keys included; and it leaves a resource tracker
  process behind;
* a pool costs three or four threads, here the event loop does it all.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from nanobatch_runtime.pictures.errors import (
    REASONS,
    PictureCheckerUnavailableError,
    PictureCheckFailedError,
    PictureError,
)
from nanobatch_runtime.pictures.facts import Checked, PictureFacts, PictureLimits, Thumbnail
from nanobatch_runtime.pictures.files import part_of
from nanobatch_runtime.pictures.worker import Worker, WorkerGoneError

_log = structlog.get_logger("nanobatch.pictures")

# Decoders leak and fragment a little; a fresh start costs a fifth of a second.
TASKS_PER_CHILD = 500
# A child that was killed while idle is replaced without a word, but not for ever.
_TRIES = 3


class PictureChecker:
    """Decodes pictures apart from this process. An async context manager; the children live as long as it is open.

    More tasks than children wait in order, without a limit: callers bound what they send. Cancelling a wait kills the
    child that works on it. Needs an event loop that stays in one thread (on Linux children die with that thread).
    """

    def __init__(
        self,
        limits: PictureLimits | None = None,
        *,
        max_workers: int | None = None,
        tasks_per_child: int = TASKS_PER_CHILD,
        warm: bool = True,
    ) -> None:
        """Use ``max_workers`` children (default: one per CPU, at most 2), started in the background where ``warm``."""
        self._limits = limits or PictureLimits()
        self._slots = [_Slot(self._limits, tasks_per_child) for _ in range(max_workers or min(2, os.cpu_count() or 1))]
        # Last in, first out: under little load one warm child does everything.
        self._free: asyncio.LifoQueue[_Slot] = asyncio.LifoQueue()
        self._warm = warm
        self._open = False

    async def __aenter__(self) -> Self:
        """Open; returns at once, while children start."""
        self._open = True
        for slot in self._slots:
            self._free.put_nowait(slot)
            if self._warm:
                slot.warm_up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all children. Checks that are still awaited raise PictureCheckerUnavailableError."""
        self._open = False
        await asyncio.gather(*(slot.close() for slot in self._slots))

    @property
    def pids(self) -> list[int]:
        """Process ids of the children that are up, for metrics and tests."""
        return [slot.worker.pid for slot in self._slots if slot.worker is not None]

    async def check(self, path: Path, *, thumbnail: bool = False) -> Checked:
        """Decode the whole file at ``path``, and make its thumbnail by the way where one is wanted.

        The file is not touched. Raises a PictureError that says what is wrong with it, OSError where it cannot be read,
        PictureCheckerUnavailableError where no child can be had.
        """
        return await self._run("check", path, thumbnail=thumbnail)

    async def prepare_upload(self, path: Path, out_path: Path) -> PictureFacts:
        """Write to ``out_path`` what may be stored of a user's file: upright, and nothing but pixels and colours.

        A file that is so already is written as it is. The facts are those of ``out_path``. Raises as :meth:`check`, and
        OSError where it cannot be written; then there is no such file.
        """
        return (await self._run("prepare_upload", path, out=out_path)).facts

    async def _run(self, verb: str, path: Path, *, out: Path | None = None, thumbnail: bool = False) -> Checked:
        if not self._open:
            raise _ending()
        task = {**self._task(verb, path, out), "thumbnail": thumbnail}
        slot = await self._free.get()
        try:
            answer = await slot.run(task, out)
        finally:
            self._free.put_nowait(slot)
        if "errno" in answer:
            raise OSError(answer["errno"], answer["message"], answer["path"])
        if "error" in answer:
            raise REASONS.get(answer["error"], PictureError)(answer["message"])
        small = answer["thumbnail"]
        made = small and Thumbnail(base64.b64decode(small["data"]), PictureFacts(**small["facts"]))
        return Checked(PictureFacts(**answer["facts"]), made)

    def _task(self, verb: str, path: Path, out: Path | None) -> dict[str, Any]:
        return {
            "do": verb,
            "path": str(path.absolute()),
            "out": out and str(out.absolute()),
            "max_bytes": self._limits.max_bytes,
            "max_pixels": self._limits.max_pixels,
        }


class _Slot:
    """A place for one child, which always has one, or one that is about to come."""

    def __init__(self, limits: PictureLimits, tasks_per_child: int) -> None:
        self._limits = limits
        self._tasks_per_child = tasks_per_child
        self._coming: asyncio.Task[Worker] | None = None
        self._out: Path | None = None  # what the child may have begun to write
        self._busy = asyncio.Lock()
        self._closed = False

    @property
    def worker(self) -> Worker | None:
        coming = self._coming
        if coming is None or not coming.done() or coming.cancelled() or coming.exception() is not None:
            return None
        return coming.result()

    def warm_up(self) -> asyncio.Task[Worker]:
        if self._coming is None:
            self._coming = asyncio.create_task(Worker.start(self._limits), name="picture-child")
        return self._coming

    async def run(self, task: Mapping[str, Any], out: Path | None) -> dict[str, Any]:
        async with self._busy:
            for _ in range(_TRIES):
                worker = await self._next_worker()
                self._out = out
                try:
                    answer = await worker.ask(task)
                except WorkerGoneError:
                    self._replace(worker)
                    continue
                except PictureCheckFailedError as error:
                    self._replace(worker)
                    if self._closed:  # it was we who killed the child
                        raise _ending() from None
                    _log.warning("picture.check_failed", cause=error.metadata["cause"], pid=worker.pid)
                    raise
                except BaseException:  # cancelled: its answer must not pass for that of the next task
                    self._replace(worker)
                    raise
                self._out = None
                if worker.tasks_done >= self._tasks_per_child:
                    self._replace(worker)
                return answer
        raise PictureCheckerUnavailableError("Pictures cannot be checked at the moment.")

    async def close(self) -> None:
        self._closed = True
        if self.worker is not None:
            self.worker.kill()
        async with self._busy:  # a task that was running fails now, and lets go of the child
            if self._coming is not None:
                # Not cancelled but awaited: it starts within a moment, and then there is something to be stopped.
                await asyncio.wait([self._coming])
            if self.worker is not None:
                await self._dismiss(self.worker)

    async def _next_worker(self) -> Worker:
        if self._closed:
            raise _ending()
        coming = self.warm_up()
        try:
            return await asyncio.shield(coming)  # a caller who gives up takes no child away from the next one
        except Exception:
            self._coming = None  # the next task tries again
            raise

    def _replace(self, worker: Worker) -> None:
        worker.kill()
        if not self._closed:
            self._coming = asyncio.create_task(self._successor(worker), name="picture-child")

    async def _successor(self, worker: Worker) -> Worker:
        await self._dismiss(worker)
        return await Worker.start(self._limits)

    async def _dismiss(self, worker: Worker) -> None:
        out, self._out = self._out, None
        await worker.stop()
        if out is not None:
            part_of(out).unlink(missing_ok=True)


def _ending() -> PictureCheckerUnavailableError:
    return PictureCheckerUnavailableError("Pictures are not checked any more: this process is ending.")
