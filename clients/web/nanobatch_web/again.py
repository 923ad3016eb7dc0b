"""More of what there is: new executions from old ones."""

from __future__ import annotations

from collections.abc import Sequence

from nanobatch_client import Client, Execution, NotFoundError, Prompt, Result, RunOptions, Settings


async def again_like(
    client: Client, execution_id: str, result_ids: Sequence[str], *, api_key: str | None, request_id: str | None
) -> Execution:
    """Start a child execution with one picture more for each of the named results: same prompts, same settings.

    The seed is left out: where it decides on the picture, the very same one would come again. Raises NanobatchError.
    """
    parent = await client.get_execution(execution_id)
    results = [await client.get_result(result_id) for result_id in result_ids]
    if any(result.execution_id != parent.id for result in results):
        raise NotFoundError("There is no such picture in this batch.", reason="RESULT_NOT_FOUND")
    options = _options(parent)
    options["parent_execution_id"] = parent.id
    options["variations"] = 1
    return await client.create_execution(
        [with_its_pictures(parent.settings, result, result.prompt_text) for result in results],
        model=parent.model,
        api_key=api_key,
        references=parent.settings.reference_image_ids,
        request_id=request_id,
        **options,
    )


def with_its_pictures(settings: Settings, result: Result, text: str) -> str | Prompt:
    """Return ``text`` as a prompt with what ``result`` was made with, where that was not the common pictures."""
    if not result.source_image_id and result.reference_image_ids == settings.reference_image_ids:
        return text
    return Prompt(text, result.source_image_id, result.reference_image_ids)


def whole_prompt(settings: Settings, text: str) -> str:
    """Return a prompt as the provider got it: with what stood before and behind every prompt."""
    return " ".join(part for part in (settings.prefix, text, settings.suffix) if part)


def _options(execution: Execution) -> RunOptions:
    settings = execution.settings
    options = RunOptions(prefix=settings.prefix, suffix=settings.suffix, on_unknown=settings.on_unknown)
    if settings.aspect_ratio:
        options["aspect_ratio"] = settings.aspect_ratio
    if settings.image_size:
        options["image_size"] = settings.image_size
    if settings.max_attempts:
        options["max_attempts"] = settings.max_attempts
    if settings.timeout is not None:
        options["timeout"] = settings.timeout
    if execution.max_cost_micros is not None:
        options["max_cost_micros"] = execution.max_cost_micros
    return options
