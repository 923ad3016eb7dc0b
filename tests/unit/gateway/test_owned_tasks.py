"""A watch that is given up as its source breaks off leaves no task behind whose error nobody asked for."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from nanobatch_gateway import feed
from nanobatch_gateway.domain import SourceLostError
from nanobatch_gateway.servicers import guard


async def breaking(off: asyncio.Event) -> AsyncIterator[None]:
    await off.wait()
    raise SourceLostError("The stream broke off.")
    yield


async def failing(off: asyncio.Event) -> None:
    await off.wait()
    raise SourceLostError("The stream broke off.")


@pytest.mark.parametrize("kind", ["feed", "guard"])
async def test_who_is_cancelled_as_the_work_fails_takes_its_error_along(kind):
    told: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    off, never = asyncio.Event(), asyncio.create_task(asyncio.sleep(60))
    work = feed._next_unless(breaking(off), (never,)) if kind == "feed" else guard._unless(never, failing(off))
    waiting = asyncio.create_task(work)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    off.set()
    await asyncio.sleep(0)  # the work fails, and nobody has been told yet
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    never.cancel()
    gc.collect()
    await asyncio.sleep(0)
    assert told == []
