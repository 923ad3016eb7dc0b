"""What ``nanobatch doctor`` asks a provider: whether it knows a key, and offers the model. It costs nothing."""

from __future__ import annotations

from nanobatch_generator.providers.registry import open_providers
from nanobatch_runtime.diagnosis import ComplaintError, Finding, examine


async def examine_key(provider: str, model: str, key: str, *, base_url: str = "", variable: str) -> Finding:
    """Make the provider's free key check. ``variable`` is where the key came from; ``base_url`` as in the settings."""

    async def work() -> str:
        async with open_providers(gemini_base_url=base_url) as providers:
            await providers[provider].ready()
            check = await providers[provider].check_key(model, key)
        if not check.valid:
            raise ComplaintError(
                check.message or "The provider does not take this key.",
                f"Try it at the provider's own site, make a new one, and set {variable}.",
            )
        if not check.model_available:
            raise ComplaintError(
                check.message or f"The provider does not offer {model} to this key.",
                "Choose another model (`nanobatch models`), or ask the provider for access.",
            )
        return f"the key is good, {model} is offered"

    advice = (
        "See whether this machine reaches the provider (HTTPS_PROXY, a firewall), or correct NANOBATCH_GEMINI_BASE_URL."
    )
    return await examine(f"provider {provider}", base_url, work, advice=advice)
