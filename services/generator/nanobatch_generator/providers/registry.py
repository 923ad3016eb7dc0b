"""Which providers there are."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

from nanobatch_generator.ports import Provider
from nanobatch_generator.providers.gemini import DEFAULT_BASE_URL, GeminiProvider
from nanobatch_generator.providers.sandbox import DEFAULT_DELAY, SandboxProvider
from nanobatch_runtime.errors import NotFoundError


class ProviderNotFoundError(NotFoundError):
    """This generator knows no provider of that name: most likely it is older than the gateway."""

    reason = "PROVIDER_NOT_FOUND"


def provider_named(providers: Mapping[str, Provider], name: str) -> Provider:
    """Return the provider of that name. Raises ProviderNotFoundError."""
    provider = providers.get(name)
    if provider is None:
        raise ProviderNotFoundError(f"There is no provider {name!r} here; there are: {', '.join(sorted(providers))}.")
    return provider


@asynccontextmanager
async def open_providers(
    *, gemini_base_url: str = DEFAULT_BASE_URL, sandbox_delay: timedelta = DEFAULT_DELAY
) -> AsyncGenerator[Mapping[str, Provider]]:
    """Build all providers once, by the names of the catalogue; warm; closed at the end. Keys come with the calls."""
    gemini = GeminiProvider(gemini_base_url)
    try:
        await gemini.warm_up()
        yield {"gemini": gemini, "sandbox": SandboxProvider(sandbox_delay)}
    finally:
        await gemini.aclose()
