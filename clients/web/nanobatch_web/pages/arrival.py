"""What other pages ask the wizard to begin with, by its address: ``?reference=IMAGE`` and ``?again=EXECUTION``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nanobatch_client import Client, Execution
from nanobatch_web.again import whole_prompt
from nanobatch_web.pages.money import amount

# What was asked for once is not asked for again by a reload; while nobody has answered it still waits.
FORGET_ARRIVAL = """(reconnect) => {
    if (reconnect?.waiting) return;
    const address = new URL(location.href);
    for (const name of ['reference', 'again']) address.searchParams.delete(name);
    history.replaceState(null, '', address);
}"""


async def arrive(client: Client, stored: Mapping[str, Any], asked: Mapping[str, str]) -> dict[str, Any]:
    """Return the draft to begin with: the ``stored`` one and what the address ``asked`` for. Raises NanobatchError."""
    draft = dict(stored)
    if asked.get("again"):
        execution = await client.get_execution(asked["again"])
        results = client.list_results(execution.id)
        draft = _draft_of(execution, [result.prompt_text async for result in results if not result.variation])
    if asked.get("reference"):
        held = [name for name in draft.get("references") or [] if name != asked["reference"]]
        draft["references"] = [*held, asked["reference"]]
    return draft


def _draft_of(execution: Execution, prompts: list[str]) -> dict[str, Any]:
    settings = execution.settings
    return {
        "model": execution.model,
        "text": "\n\n".join(_one_paragraph(whole_prompt(settings, text)) for text in prompts),
        "references": list(settings.reference_image_ids),
        "ratio": settings.aspect_ratio,
        "size": settings.image_size,
        "variations": max(1, settings.variations),
        "cap": None if execution.max_cost_micros is None else amount(execution.max_cost_micros),
    }


def _one_paragraph(prompt: str) -> str:
    """Return a prompt without blank lines: in the box they would part it in two."""
    return "\n".join(line for line in prompt.splitlines() if line.strip())
