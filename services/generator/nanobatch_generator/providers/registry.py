"""Which providers there are."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from nanobatch_generator.ports import Provider
from nanobatch_generator.providers.loading import loading
from nanobatch_generator.providers.sandbox import DEFAULT_DELAY, SandboxProvider
from nanobatch_runtime.imports import leaving_out

if TYPE_CHECKING:
    from nanobatch_generator.providers.gemini import GeminiProvider


@asynccontextmanager
async def open_providers(
    *,
    gemini_base_url: str = "",
    sandbox_delay: timedelta = DEFAULT_DELAY,
    sandbox_may_crash: bool = False,
    only: str = "",
) -> AsyncGenerator[Mapping[str, Provider]]:
    """Build all providers once, by the names of the catalogue; closed at the end. Keys come with the calls.

    ``gemini_base_url``: empty for Google's own address. Gemini loads in the background: nothing here waits for it.
    ``only`` builds no more than the provider of that name needs.
    """
    sandbox = SandboxProvider(sandbox_delay, may_crash=sandbox_may_crash)
    if only == "sandbox":
        yield {"sandbox": sandbox}
        return

    async def load_gemini() -> GeminiProvider:
        module = await asyncio.to_thread(_import_gemini)
        gemini: GeminiProvider = module.GeminiProvider(gemini_base_url or module.DEFAULT_BASE_URL)
        await gemini.warm_up()
        return gemini

    async with loading(load_gemini, lambda gemini: gemini.aclose()) as gemini:
        yield {"gemini": gemini, "sandbox": sandbox}


def _import_gemini() -> Any:
    # Pictures as objects of Pillow, another HTTP library and httpx's own command line: none of them is used, and they
    # take 6 MB.
    with leaving_out("PIL.Image", "httpx2", "httpx._main"):
        return importlib.import_module("nanobatch_generator.providers.gemini")
