"""The figures of the queue for those who watch it: looked up every few seconds, whoever asks however often."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from nanobatch_runtime.metrics import (
    CREDENTIALS_COOLING,
    QUEUE_AGE,
    QUEUE_OLDEST,
    QUEUE_OVERDUE,
    QUEUE_READY,
    QUEUE_WANTED,
)
from nanobatch_storage.ports_queue import Figures, QueueFigures


class ShownFigures:
    """The last look. Where a look fails the figures stay and their age tells."""

    def __init__(self, figures: Figures) -> None:
        """``figures`` are asked by :meth:`look` alone."""
        self._figures = figures
        self._seen = QueueFigures()
        self._looked = time.monotonic()

    async def look(self) -> None:
        """Look anew."""
        self._seen = await self._figures.look()
        self._looked = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the last look while the context is open."""
        with ExitStack() as stack:
            stack.enter_context(QUEUE_READY.of(lambda: self._seen.ready))
            stack.enter_context(QUEUE_WANTED.of(lambda: self._seen.wanted))
            stack.enter_context(QUEUE_OLDEST.of(lambda: self._seen.oldest))
            stack.enter_context(QUEUE_OVERDUE.of(lambda: self._seen.overdue))
            stack.enter_context(CREDENTIALS_COOLING.of(lambda: self._seen.cooling))
            stack.enter_context(QUEUE_AGE.of(self._age))
            yield

    def _age(self) -> Mapping[tuple[str, ...], float]:
        return {(): time.monotonic() - self._looked}
