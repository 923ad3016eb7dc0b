"""A provider whose library is loaded in the background: google-genai alone takes a second to import."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from nanobatch_generator.domain import Accepted, Done, KeyCheck, PictureRequest
from nanobatch_generator.ports import Provider
from nanobatch_runtime.lifecycle import cancel

P = TypeVar("P", bound=Provider)


class LoadingProvider(Generic[P]):
    """Stands for a provider until it is there; calls that come before wait for it."""

    def __init__(self, loading: asyncio.Task[P]) -> None:
        """``loading`` ends with the provider; what it raises instead, every call raises."""
        self._loading = loading

    async def submit(self, request: PictureRequest, key: str) -> Done | Accepted:
        """See :class:`nanobatch_generator.ports.Provider`."""
        return await (await asyncio.shield(self._loading)).submit(request, key)

    async def ready(self) -> None:
        """See :class:`nanobatch_generator.ports.Provider`."""
        await asyncio.shield(self._loading)

    async def check_key(self, model: str, key: str) -> KeyCheck:
        """See :class:`nanobatch_generator.ports.Provider`."""
        return await (await asyncio.shield(self._loading)).check_key(model, key)


@asynccontextmanager
async def loading(
    load: Callable[[], Coroutine[None, None, P]], close: Callable[[P], Awaitable[None]]
) -> AsyncGenerator[LoadingProvider[P]]:
    """Start loading at once and go on; closed at the end, if it was ever there."""
    task = asyncio.create_task(load(), name="load-provider")
    try:
        yield LoadingProvider(task)
    finally:
        if task.done() and not task.cancelled() and task.exception() is None:
            await close(task.result())
        else:
            await cancel(task)
