"""What ``nanobatch doctor`` asks a provider: whether it knows a key, and which models it offers. It costs nothing."""

from __future__ import annotations

from datetime import UTC, datetime

from nanobatch_catalog.models import list_models
from nanobatch_generator.providers.registry import open_providers
from nanobatch_runtime.diagnosis import ComplaintError, Finding, examine


async def examine_key(provider: str, key: str, *, base_url: str = "", variable: str) -> Finding:
    """Make the provider's free key check for each of its models that we know, those past their retirement last.

    ``variable`` is where the key came from; ``base_url`` as in the settings.
    """
    models = [model for model in list_models(datetime.now(UTC).date()) if model.provider == provider]

    async def work() -> str:
        offered: list[str] = []
        missing: list[str] = []
        async with open_providers(gemini_base_url=base_url) as providers:
            await providers[provider].ready()
            for model in models:
                check = await providers[provider].check_key(model.id, key)
                if not check.valid:
                    raise ComplaintError(
                        check.message or "The provider does not take this key.",
                        f"Try it at the provider's own site, make a new one, and set {variable}.",
                    )
                if check.model_available:
                    offered.append(model.id)
                else:
                    successor = f" (its successor is {model.successor})" if model.successor else ""
                    missing.append(f"{model.id}{successor}")
        if not offered:
            raise ComplaintError(
                f"The provider offers this key none of {', '.join(missing)}.", "Ask the provider for access."
            )
        text = f"the key is good; offered: {', '.join(offered)}"
        return f"{text}; not offered: {', '.join(missing)}" if missing else text

    advice = (
        "See whether this machine reaches the provider (HTTPS_PROXY, a firewall), or correct NANOBATCH_GEMINI_BASE_URL."
    )
    return await examine(f"provider {provider}", base_url, work, advice=advice)
