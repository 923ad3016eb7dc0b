"""What the gateway finds wrong, sorted by where a person can mend it."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from nanobatch_client import Violation
from nanobatch_web import refusals
from nanobatch_web.pages.context import language_of, say

KEY = "#nb-key"
# Fields of CreateExecutionRequest -> where they stand in the first step; the longest name that fits counts.
_PLACES = {
    "model": "#nb-model",
    "api_key": KEY,
    "credential_id": KEY,
    "prompts": "#nb-prompts",
    "prompts_text": "#nb-prompts",
    "reference_image_ids": "#nb-references",
    "output.aspect_ratio": "#nb-ratio",
    "output.image_size": "#nb-size",
    "variations": "#nb-variations",
    "max_cost_micros": "#nb-cap",
}
_ELSEWHERE = "#nb-problems"


def by_prompt(problems: Sequence[Violation], request: gr.Request) -> dict[str, list[str]]:
    """Return what is wrong with single prompts: number (from 0) -> sentences."""
    found: dict[str, list[str]] = {}
    for problem in problems:
        number = _prompt_number(problem)
        if number is not None:
            found.setdefault(number, []).append(_sentence(problem, request))
    return found


def elsewhere(problems: Sequence[Violation], request: gr.Request) -> list[str]:
    """Return what is wrong with anything but single prompts."""
    return [_sentence(problem, request) for problem in problems if _prompt_number(problem) is None]


def at_fields(problems: Sequence[Violation], request: gr.Request) -> dict[str, list[str]]:
    """Return everything that is wrong, for the first step: selector of the place -> sentences."""
    places: dict[str, list[str]] = {}
    for problem in problems:
        number = _prompt_number(problem)
        sentence = _sentence(problem, request)
        if number is not None:
            sentence = f"{say(request, 'review.prompt', number=int(number) + 1)}: {sentence}"
        place = places.setdefault(_PLACES.get(problem.field.partition("[")[0], _ELSEWHERE), [])
        if sentence not in place:
            place.append(sentence)
    return places


def _sentence(problem: Violation, request: gr.Request) -> str:
    return refusals.told_of_field(language_of(request), problem)


def _prompt_number(problem: Violation) -> str | None:
    name, bracket, rest = problem.field.partition("[")
    number = rest.partition("]")[0]
    return number if name == "prompts" and bracket and number.isdigit() else None
