"""Calls that come while one of their kind runs are done together next: one transaction for all of them.

Together they pay once for locks, statements and the commit, so that a busy storage does more in a second, while one that is
idle answers no later: nobody waits for company (docs/adr/0020).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from nanobatch_storage.adapters.database import Database, DatabaseUnavailableError, Transaction

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_MOST = 32
"""So many calls share a transaction at most: one that is cut or repeated concerns no more of them."""
_HELD_UP = 0.25
"""A batch that has run for so many seconds waits for somebody's lock: those behind it go past it."""
_LINES = 4


@dataclass(slots=True)
class _Call(Generic[Item, Outcome]):
    item: Item
    done: asyncio.Future[Outcome]


class Batches(Generic[Item, Outcome]):
    """Runs calls one batch after the other."""

    def __init__(
        self, database: Database, work: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome | Exception]]]
    ) -> None:
        """``work`` gets the items, and returns for each its outcome or what to raise. Its tasks are the database's."""
        self._database = database
        self._work = work
        self._waiting: deque[_Call[Item, Outcome]] = deque()
        self._lines = 0

    async def do(self, item: Item) -> Outcome:
        """Have ``item`` done, with those that wait beside it. Raises what ``work`` says, and DatabaseUnavailableError.

        Who is cancelled while waiting has not been done; once a batch runs, it runs to its end.
        """
        call: _Call[Item, Outcome] = _Call(item, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._lines == 0:
            self._open_line()
        return await call.done

    def _open_line(self) -> None:
        self._lines += 1
        self._database.own(self._run(), "batches")

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST))]
                with self._watched():
                    await self._do([call for call in batch if not call.done.done()])
        finally:
            self._lines -= 1

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Let what waits go past a batch that is held up. Most end before the timer, which costs next to nothing then."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            if self._waiting and self._lines < _LINES:
                self._open_line()
            timer = loop.call_later(_HELD_UP, look)

        timer = loop.call_later(_HELD_UP, look)
        try:
            yield
        finally:
            timer.cancel()

    async def _do(self, batch: Sequence[_Call[Item, Outcome]]) -> None:
        if not batch:
            return
        outcomes: Sequence[Outcome | Exception]
        try:
            outcomes = await self._work([call.item for call in batch])
        except Exception as error:  # noqa: BLE001  # handed to those who asked
            if len(batch) > 1 and not isinstance(error, DatabaseUnavailableError):
                for call in batch:  # who spoils a transaction spoils nobody else's
                    await self._do([call])
                return
            outcomes = [error] * len(batch)
        for call, outcome in zip(batch, outcomes, strict=True):
            if call.done.done():
                continue
            if isinstance(outcome, Exception):
                call.done.set_exception(outcome)
            else:
                call.done.set_result(outcome)


def in_transaction(
    database: Database, work: Callable[[Transaction, Sequence[Item]], Awaitable[Sequence[Outcome | Exception]]]
) -> Callable[[Sequence[Item]], Awaitable[Sequence[Outcome | Exception]]]:
    """Return ``work`` as a function of the items alone, each time in a transaction of its own."""

    async def run(items: Sequence[Item]) -> Sequence[Outcome | Exception]:
        return await database.write(lambda tx: work(tx, items))

    return run
