"""What other pages ask the wizard to begin with, by its address: ``?reference=IMAGE`` and ``?again=EXECUTION``.

With ``&rest=true`` only what has no picture is begun with, and a model that is gone gives way to its successor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nanobatch_client import Client, Execution, PauseReason, Prompt, Result, ResultState
from nanobatch_web.again import whole_prompt, with_its_pictures
from nanobatch_web.pages.files import one_paragraph
from nanobatch_web.pages.form import stored_prompts
from nanobatch_web.pages.money import amount

# What was asked for once is not asked for again by a reload; while nobody has answered it still waits.
FORGET_ARRIVAL = """(reconnect) => {
    if (reconnect?.waiting) return;
    const address = new URL(location.href);
    for (const name of ['reference', 'again', 'rest']) address.searchParams.delete(name);
    history.replaceState(null, '', address);
}"""


async def arrive(client: Client, stored: Mapping[str, Any], asked: Mapping[str, str]) -> dict[str, Any]:
    """Return the draft to begin with: the ``stored`` one and what the address ``asked`` for. Raises NanobatchError."""
    draft = dict(stored)
    if asked.get("again"):
        execution = await client.get_execution(asked["again"])
        results = [result async for result in client.list_results(execution.id)]
        if asked.get("rest"):
            results = [result for result in results if result.state is not ResultState.COMPLETED]
        draft = _draft_of(execution, results)
        if execution.pause_reason is PauseReason.MODEL_GONE:
            draft["model"] = await _successor(client, execution.model)
    if asked.get("reference"):
        held = [name for name in draft.get("references") or [] if name != asked["reference"]]
        draft["references"] = [*held, asked["reference"]]
    return draft


async def _successor(client: Client, model_id: str) -> str:
    known = {model.id: model for model in await client.list_models()}
    return known[model_id].successor or model_id if model_id in known else model_id


def _draft_of(execution: Execution, results: list[Result]) -> dict[str, Any]:
    settings = execution.settings
    common = max(1, settings.variations)
    wanted = Counter(result.batch_index for result in results)
    first_of: dict[int, Result] = {}
    for result in results:
        first_of.setdefault(result.batch_index, result)
    prompts: list[Prompt] = []
    for index, result in first_of.items():
        text = one_paragraph(whole_prompt(settings, result.prompt_text))
        prompt = with_its_pictures(settings, result, text)
        own = prompt if isinstance(prompt, Prompt) else Prompt(text)
        count = wanted[index]
        prompts.append(own if count == common else replace(own, variations=count))
    return {
        "model": execution.model,
        "text": "\n\n".join(prompt.text for prompt in prompts),
        "references": list(settings.reference_image_ids),
        "own": stored_prompts(prompt for prompt in prompts if prompt != Prompt(prompt.text)),
        "ratio": settings.aspect_ratio,
        "size": settings.image_size,
        "variations": common,
        "cap": None if execution.max_cost_micros is None else amount(execution.max_cost_micros),
    }
