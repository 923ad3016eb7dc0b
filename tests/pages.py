"""What tests of the web page have in common."""

import httpx

from nanobatch_runtime.testing import eventually

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""What Chromium is told: no services of its own, nothing looked up."""


async def answering(url: str) -> None:
    """Wait until a page answers at all, with whatever."""

    async def answers() -> bool:
        async with httpx.AsyncClient() as client:
            try:
                return (await client.get(url, timeout=60)).status_code > 0
            except httpx.HTTPError:
                return False

    await eventually(answers, within=300)
