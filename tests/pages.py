"""What tests of the web page have in common."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from playwright.async_api import Browser, async_playwright

from nanobatch_client import Client, Execution
from nanobatch_runtime.testing import eventually

# The headless shell is Chromium without what a desktop sees of it: a page costs it a third less of a processor.
_PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""What Chromium is told: no services of its own, nothing looked up."""


@asynccontextmanager
async def headless_chromium() -> AsyncIterator[Browser]:
    """Run Chromium without a screen. Raises FileNotFoundError where there is none."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        message = "Chromium was not found: install it (apt-get install chromium-headless-shell)."
        raise FileNotFoundError(message)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=_FLAGS)
        yield browser
        await browser.close()


async def answering(url: str) -> None:
    """Wait until a page answers at all, with whatever."""

    async def answers() -> bool:
        async with httpx.AsyncClient() as client:
            try:
                return (await client.get(url, timeout=60)).status_code > 0
            except httpx.HTTPError:
                return False

    await eventually(answers, within=300)


async def paused(client: Client) -> Execution:
    """Create a run that rests, of 39 prompts that will do and one that fails.

    A generator starts 32 calls at once: of fewer prompts all would be out before the pause comes, and the run would end.
    """
    prompts = [*(f"[delay:1] {number}" for number in range(39)), "[fail:400] last"]
    run = await client.create_execution(prompts, model="sandbox")
    stopped = await client.pause_execution(run.id)
    assert stopped.stats.pending
    return stopped
