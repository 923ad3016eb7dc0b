"""The replica of one execution, and the watchers that read it.

Watching is state replication, not a log: the replica keeps the newest message of each row, and each watcher a cursor. A
watcher is given all rows beyond its cursor in ascending order, then waits. One that is slow finds fewer, newer rows: the
replica bounds what it can fall behind, and no queue grows. It knows no contract: messages and counts are opaque here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar

from nanobatch_runtime.errors import NanobatchError


class Change(Protocol):
    """One step of the replication."""

    @property
    def revision(self) -> int:
        """The row's; 0 for a light message, which is never replayed."""
        ...

    @property
    def row_id(self) -> str:
        """The result; empty for the execution itself."""
        ...

    @property
    def message(self) -> Any:
        """What watchers are given: built once, shared by all."""
        ...

    @property
    def stats(self) -> Any:
        """The execution's counts as of this step."""
        ...


class Ending(Protocol):
    """Makes the error that a watch ends with."""

    def __call__(self, *, metadata: Mapping[str, str]) -> NanobatchError:
        """``metadata`` holds the ``revision`` to resume from."""
        ...


C = TypeVar("C", bound=Change)


class _Row(Generic[C]):
    """The newest change of a row, with the message as it is given out, and the counts that this carries."""

    __slots__ = ("change", "message", "revision", "stats")

    def __init__(self, change: C) -> None:
        self.change = change
        self.revision = change.revision
        self.message = change.message
        self.stats = change.stats


class _Watcher:
    """One reader's place."""

    __slots__ = ("cursor", "failure", "noticed", "tick", "wake")

    def __init__(self, cursor: int, tick: int) -> None:
        self.cursor = cursor
        self.tick = tick
        self.noticed = 0
        self.wake = asyncio.Event()
        self.failure: Ending | None = None

    def end(self, ending: Ending) -> None:
        self.failure = ending
        self.wake.set()


class Replica(Generic[C]):
    """The newest state of one execution's rows, given to any number of watchers."""

    def __init__(self, with_stats: Callable[[Any, Any], Any]) -> None:
        """``with_stats(message, stats)`` returns a copy of a message with other counts."""
        self.revision = 0
        """The highest one applied."""
        self.stats: Any = None
        """The newest counts; None before the first change."""
        self.ended = False
        """Whether nothing more will be applied; set by :meth:`end`."""
        self._with_stats = with_stats
        # Both in ascending order: what changes is taken out and put in again at the end.
        self._rows: dict[str, _Row[C]] = {}
        self._light: dict[str, tuple[int, Any]] = {}
        # What was last said about the execution as a whole stands until it is replaced: newcomers are told, too.
        self._notice: tuple[int, Any] | None = None
        self._tick = 0
        self._failure: Ending | None = None
        self._watchers: set[_Watcher] = set()

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._watchers)

    @property
    def complete(self) -> bool:
        """Whether it ended because the execution had."""
        return self.ended and self._failure is None

    def row(self, row_id: str) -> C | None:
        """Return the newest change of a row."""
        row = self._rows.get(row_id)
        return None if row is None else row.change

    def rows(self) -> Iterator[C]:
        """Iterate over the newest change of each row, in ascending order."""
        return (row.change for row in self._rows.values())

    async def watch(
        self, after_revision: int, *, lasting: timedelta | None = None, moved: Ending | None = None
    ) -> AsyncGenerator[Any]:
        """Give all rows beyond ``after_revision``, then live ones. Ends after the final state has been given.

        Raises what :meth:`end` was given, and what ``moved`` makes when the watch has lasted for ``lasting``; both with
        the metadata ``revision``, and never while a message is on its way.
        """
        watcher = _Watcher(after_revision, self._tick)
        retired = None
        if lasting is not None and moved is not None:
            retired = asyncio.get_running_loop().call_later(lasting.total_seconds(), watcher.end, moved)
        self._watchers.add(watcher)
        try:
            while True:
                watcher.wake.clear()
                for message in self._news(watcher):
                    yield message
                    self._check(watcher)
                if watcher.wake.is_set():
                    continue
                self._check(watcher)
                if self.ended:
                    return
                await watcher.wake.wait()
        finally:
            self._watchers.discard(watcher)
            if retired is not None:
                retired.cancel()

    def apply(self, change: C) -> None:
        """Take a change over and tell all watchers; one that is not above the revision was heard before."""
        if not change.revision:
            self.stats = change.stats
            self.tell(change.row_id, change.message)
            return
        if change.revision <= self.revision:
            return
        self.stats = change.stats
        self.revision = change.revision
        self._rows.pop(change.row_id, None)
        self._rows[change.row_id] = _Row(change)
        self._light.pop(change.row_id, None)  # what was guessed about this row is older than this
        self._wake()

    def tell(self, row_id: str, message: Any) -> None:
        """Give a light message about a row, or with an empty id about the execution, to all who watch."""
        self._tick += 1
        if row_id:
            self._light.pop(row_id, None)
            self._light[row_id] = (self._tick, message)
        else:
            self._notice = (self._tick, message)
        self._wake()

    def forget_notice(self) -> None:
        """Tell newcomers nothing of what was said last about the execution: who said it is gone."""
        self._notice = None

    def end(self, failure: Ending | None = None) -> None:
        """End all watches: after what they have not been given yet, or with ``failure`` at once. The first end counts."""
        if self.ended:
            return
        self.ended = True
        self._failure = failure
        self._wake()

    def _news(self, watcher: _Watcher) -> Iterator[Any]:
        """Give what this watcher has not seen, moving its cursor along; a snapshot, since rows change meanwhile."""
        fresh: list[_Row[C]] = []
        for row in reversed(self._rows.values()):
            if row.revision <= watcher.cursor:
                break
            fresh.append(row)
        for row in reversed(fresh):
            watcher.cursor = row.revision
            yield self._message(row)
        light: list[Any] = []
        for tick, message in reversed(self._light.values()):
            if tick <= watcher.tick:
                break
            light.append(message)
        watcher.tick = self._tick
        yield from reversed(light)
        if self._notice is not None and self._notice[0] > watcher.noticed:
            watcher.noticed = self._notice[0]
            yield self._notice[1]

    def _message(self, row: _Row[C]) -> Any:
        # Made at most once per row and change of the counts, then shared by all watchers who need it.
        if row.stats is not self.stats:
            row.message = self._with_stats(row.message, self.stats)
            row.stats = self.stats
        return row.message

    def _check(self, watcher: _Watcher) -> None:
        failure = self._failure or watcher.failure
        if failure is not None:
            raise failure(metadata={"revision": str(watcher.cursor)})

    def _wake(self) -> None:
        for watcher in self._watchers:
            watcher.wake.set()
