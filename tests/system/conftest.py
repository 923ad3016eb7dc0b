"""The product as its users have it: real processes, a fake Gemini, and the command line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from fakes.gemini import FakeGemini

from nanobatch_client import Client
from nanobatch_client.errors import NanobatchError

MODEL = "gemini-2.5-flash-image"
KEY = "a-provider-key-for-tests"


@pytest.fixture
async def gemini() -> AsyncIterator[FakeGemini]:
    """A fake Gemini; its ``calls`` are the only count of calls."""
    async with FakeGemini(picture_bytes=30_000) as fake:
        yield fake


async def connected(target: str, within: float = 30.0) -> Client:
    """Return a client once the server accepts requests."""
    client = Client(target)
    await client.__aenter__()
    deadline = time.monotonic() + within
    while True:
        try:
            await client.list_models()
            [one async for one in client.list_executions()]
        except NanobatchError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            return client


@pytest.fixture
def connect():
    return connected
