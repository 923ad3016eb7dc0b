"""A process that dies where its request is sent has sent it: the provider has a call, and perhaps a bill."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from fakes.gemini import FakeGemini

from nanobatch_runtime.failpoints import VARIABLE
from nanobatch_runtime.testing import eventually

SENDS = """
import asyncio, ssl, sys, httpx
from nanobatch_generator.providers.aiohttp_transport import AiohttpTransport

async def main():
    async with httpx.AsyncClient(transport=AiohttpTransport(ssl.create_default_context())) as client:
        await client.post(sys.argv[1], content=b"{}", timeout=30)

asyncio.run(main())
"""


async def test_a_request_that_is_sent_has_arrived_though_its_process_is_dead() -> None:
    async with FakeGemini() as fake:
        address = f"{fake.url}/v1beta/models/gemini-2.5-flash-image:generateContent"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SENDS, address, env={**os.environ, VARIABLE: "request_sent=kill"}
        )
        assert await process.wait() == -signal.SIGKILL
        await eventually(lambda: len(fake.calls) == 1)
