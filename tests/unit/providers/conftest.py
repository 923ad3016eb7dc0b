"""A fake Gemini and the real provider, talking over loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fakes.gemini import FakeGemini

from nanobatch_generator.providers.gemini import GeminiProvider


@pytest.fixture
async def fake() -> AsyncIterator[FakeGemini]:
    """A fake Gemini with small pictures and no latency."""
    async with FakeGemini(picture_bytes=30_000) as server:
        yield server


@pytest.fixture
async def gemini(fake: FakeGemini) -> AsyncIterator[GeminiProvider]:
    """The provider under test."""
    provider = GeminiProvider(fake.url)
    yield provider
    await provider.aclose()
