"""Replicating an execution to a watcher: what changed since its last revision, then what changes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta

from nanobatch_runtime.bus import Bus, Subscription
from nanobatch_runtime.errors import UnavailableError
from nanobatch_runtime.lifecycle import cancel
from nanobatch_storage import topics
from nanobatch_storage.domain import Actor, Waiting
from nanobatch_storage.errors import ExecutionNotFoundError, RevisionUnknownError
from nanobatch_storage.ports import ChangeLog
from nanobatch_storage.views import Change, Changes, WaitingNotice

_REPOLL = (1.0, 2.0)
"""A hint may be lost: look again after this many seconds, spread so that watchers do not look together."""


class WatchMovedError(UnavailableError):
    """This server is going down: the watch goes on elsewhere, from the revision in the metadata."""

    reason = "WATCH_MOVED"


async def watch(
    changes: ChangeLog,
    bus: Bus,
    draining: asyncio.Event,
    *,
    actor: Actor,
    execution_id: str,
    after_revision: int,
    lasting: timedelta,
) -> AsyncGenerator[Change]:
    """Iterate over all that changed after a revision, ascending, without gap or repeat, then over what changes.

    Intermediate states of a row may coalesce, its last one never does. Ends after the final state once no call is out.
    Raises ExecutionNotFoundError (unknown, or deleted meanwhile), RevisionUnknownError for a revision that was never
    given out, WatchMovedError once ``draining`` is set and after about ``lasting``; what ends a running watch names the
    ``revision`` to go on from.
    """
    cursor = max(after_revision, 0)
    clock = asyncio.get_running_loop().time
    until = clock() + lasting.total_seconds() * random.uniform(0.9, 1)  # noqa: S311  # spreads load, guards nothing
    waiting: Waiting | None = None
    # The ear before the first look: a change between the two would be heard, or seen.
    async with bus.subscribe(topics.execution(execution_id)) as hints:
        found = await changes.since(actor, execution_id, cursor)
        head = found.view.execution.revision
        if cursor > head:
            raise RevisionUnknownError(
                f"The highest revision of this execution is {head}.", metadata={"revision": str(head)}
            )
        looked_at, changed_at = time.time(), 0.0
        while True:
            for change in _ascending(found, cursor, changed_at):
                yield change
            cursor = found.upto
            if found.waiting != waiting:
                waiting = found.waiting
                yield Change(0, found.view.execution, WaitingNotice(waiting))
            execution = found.view.execution
            if found.is_complete and execution.is_final and execution.open_attempts == 0:
                return
            if found.is_complete:
                heard = await _hint_or_time(hints, draining)
                changed_at, looked_at = hints.heard_at if heard else looked_at, time.time()
            if draining.is_set():
                raise WatchMovedError("This server is going down; watch on.", metadata={"revision": str(cursor)})
            if clock() > until:
                raise WatchMovedError("This watch has lasted for long; watch on.", metadata={"revision": str(cursor)})
            try:
                found = await changes.since(actor, execution_id, cursor)
            except ExecutionNotFoundError as error:
                error.metadata["revision"] = str(cursor)
                raise


def _ascending(found: Changes, cursor: int, changed_at: float) -> Iterator[Change]:
    execution = found.view.execution
    changed = [Change(shown.result.revision, execution, shown, changed_at) for shown in found.results]
    if cursor < execution.own_revision <= found.upto:
        changed.append(Change(execution.own_revision, execution, execution, changed_at))
        changed.sort(key=lambda change: change.revision)
    yield from changed


async def _hint_or_time(hints: Subscription, draining: asyncio.Event) -> bool:
    """Wait for a hint, for the end of this server, or for the time of the next look anyway; whether it was a hint."""
    pause = timedelta(seconds=random.uniform(*_REPOLL))  # noqa: S311  # spreads load, guards nothing
    hinted = asyncio.create_task(hints.wait(pause), name="watch-hint")
    drained = asyncio.create_task(draining.wait(), name="watch-draining")
    try:
        await asyncio.wait((hinted, drained), return_when=asyncio.FIRST_COMPLETED)
        return hinted.done() and hinted.result()
    finally:
        await cancel(hinted)
        await cancel(drained)
