"""The second step: every prompt once more, the price, and everything that is wrong at once."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import orjson

from nanobatch_client import Client
from nanobatch_web.pages import problems
from nanobatch_web.pages.context import Context, say
from nanobatch_web.pages.elements import element
from nanobatch_web.pages.form import Form, Reviewed
from nanobatch_web.pages.money import dollars, duration


@dataclass(frozen=True, slots=True)
class Review:
    """The step's components."""

    prompts: gr.HTML
    """Value: ``{"form": Form.stored(), "edit": 1, "nonce": "...", "keyless": false}``, given once for each list.

    Edits come back in ``form``, counted; the nonce makes two clicks on one page one run; ``keyless``: a key is missing.
    """
    problems: gr.HTML
    """Value: :func:`found`."""
    summary: gr.HTML
    back: gr.Button
    start: gr.Button


def build(context: Context) -> Review:
    """Lay the step out."""
    summary = gr.HTML(elem_id="nb-summary")
    prompts = element("nb-review", {"form": {}, "problems": {}}, elem_id="nb-review")
    found = element("nb-review-problems", {})
    with gr.Row():
        back = gr.Button(context.label("review.back"), elem_id="nb-back")
        start = gr.Button(context.label("review.start_free"), variant="primary", elem_id="nb-start")
    return Review(prompts, found, summary, back, start)


def shown(
    form: Form, reviewed: Reviewed, request: gr.Request, *, keyless: bool = False
) -> tuple[str, dict[str, Any], gr.Button]:
    """Return the summary, the problems by prompt number (from 0) and the start button of a reviewed form.

    ``keyless``: a key is missing. That hides no price, and the start leads to its field.
    """
    missing = [say(request, "review.keyless")] if keyless else []
    if reviewed.estimate is None:
        by_prompt = problems.by_prompt(reviewed.problems, request)
        shown = _problems(by_prompt, [*problems.elsewhere(reviewed.problems, request), *missing], request)
        return shown, by_prompt, gr.Button(interactive=False)
    estimate = reviewed.estimate
    total = dollars(estimate.total_micros)
    each, count = dollars(estimate.per_image_micros), estimate.image_count
    key = "review.total_one" if count == 1 else "review.total"
    if not estimate.total_micros:
        key += "_free"
    facts = [say(request, key, count=count, each=each, total=total)]
    facts.append(
        say(request, "review.no_cap")
        if form.cap_micros is None
        else say(request, "review.cap", cap=dollars(form.cap_micros))
    )
    if estimate.expected_duration:
        facts.append(say(request, "review.duration", duration=duration(estimate.expected_duration)))
    if estimate.warnings:  # in English, and about nothing else
        facts.append(say(request, "review.retiring", model=form.model))
    items = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    caption = say(request, "review.start", total=total) if estimate.total_micros else say(request, "review.start_free")
    summary = f'<ul class="nb-summary">{items}</ul>'
    if missing:
        summary += _problems({}, missing, request)
    return summary, {}, gr.Button(caption, interactive=True)


def found(value: dict[str, Any], by_prompt: dict[str, list[str]]) -> dict[str, Any]:
    """Return what is wrong with the prompts of a review's value, by number (from 0), and which those were."""
    return {"problems": by_prompt, "nonce": value.get("nonce"), "edit": value.get("edit", 0)}


async def start(client: Client, form: Form, key: str, nonce: str) -> str:
    """Start the run and return its id; the same form and nonce start it once. Raises NanobatchError."""
    content = orjson.dumps(form.stored(), option=orjson.OPT_SORT_KEYS).decode()
    execution = await client.create_execution(
        form.whole(),
        model=form.model,
        api_key=key.strip() or None,
        references=form.references,
        request_id=str(uuid.uuid5(uuid.UUID(nonce), content)),
        **form.options(),
    )
    return execution.id


def _problems(by_prompt: dict[str, list[str]], others: list[str], request: gr.Request) -> str:
    lines = list(others)
    for number, sentences in by_prompt.items():
        name = say(request, "review.prompt", number=int(number) + 1)
        lines += [f"{name}: {sentence}" for sentence in sentences]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    title = escape(say(request, "review.problems"))
    return f'<div class="nb-problems" role="alert"><strong>{title}</strong><ul>{items}</ul></div>'
