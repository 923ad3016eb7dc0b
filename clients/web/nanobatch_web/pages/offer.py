"""What a model offers, and what the first step shows of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from html import escape
from typing import Any

import gradio as gr

from nanobatch_client import Model
from nanobatch_web.pages.context import say
from nanobatch_web.pages.money import dollars, duration

PROMPT_BOX = "#nb-prompts textarea"
_MAX_PROMPT_CHARACTERS = 10_000
"""The gateway's limit where a model has none of its own."""


def offer(
    model_id: str | None,
    known: list[Model],
    ratio: str | None,
    size: str | None,
    held: dict[str, Any] | None,
    request: gr.Request,
) -> tuple[Any, ...]:
    """Return what a model offers, and of what was chosen before what it still offers: see ``Configure.offered``."""
    picked = next((one for one in known if one.id == model_id), None)
    if picked is None:
        return (gr.skip(),) * 8
    ratios = [(say(request, "ratio.default"), ""), *((name, name) for name in picked.aspect_ratios)]
    sizes = [(_size_name(picked, name), name) for name in picked.image_sizes]
    return (
        facts(picked, known, request),
        gr.Radio(choices=ratios, value=ratio if ratio in picked.aspect_ratios else ""),
        gr.Radio(
            choices=sizes,
            value=size if size in picked.image_sizes else next(iter(picked.image_sizes), None),
            visible=len(sizes) > 1,
        ),
        gr.Textbox(visible=picked.needs_key),
        gr.Button(visible=picked.needs_key),
        "",
        # Only where it is news: an answer that comes late could take away what was dropped meanwhile.
        gr.skip()
        if (held or {}).get("limit") == picked.max_reference_images
        else {**(held or {}), "limit": picked.max_reference_images},
        {"source": PROMPT_BOX, "limit": picked.max_prompt_characters or _MAX_PROMPT_CHARACTERS},
    )


def facts(model: Model, known: Sequence[Model], request: gr.Request) -> str:
    """Return price, limits and lifecycle of a model as a list."""
    lines = []
    if model.prices and not any(price.micros for price in model.prices):
        lines.append(say(request, "model.free"))
    elif model.prices:
        prices = ", ".join(f"{price.image_size} {dollars(price.micros)}".strip() for price in model.prices)
        lines.append(say(request, "model.price", price=prices))
    lines.append(
        say(request, "model.references", count=model.max_reference_images)
        if model.max_reference_images
        else say(request, "references.none")
    )
    limit = model.max_prompt_characters or _MAX_PROMPT_CHARACTERS
    lines.append(say(request, "model.characters", count=f"{limit:,}".replace(",", "\N{NO-BREAK SPACE}")))
    if model.default_timeout:
        lines.append(say(request, "model.timeout", duration=duration(timedelta(seconds=model.default_timeout.seconds))))
    items = [f"<li>{escape(line)}</li>" for line in lines]
    items += [f'<li class="nb-odd">{escape(line)}</li>' for line in lifecycle(model, known, request)]
    where = ""
    if model.needs_key and model.key_url.startswith("https://"):
        link = escape(model.key_url, quote=True)
        where = f'<a href="{link}" target="_blank" rel="noopener noreferrer">{escape(say(request, "key.where"))}</a>'
    return f'<ul class="nb-facts">{"".join(items)}</ul>{where}'


def lifecycle(model: Model, known: Sequence[Model], request: gr.Request) -> list[str]:
    """Return when a model retires and, where the gateway warns of that, what to know before paying."""
    if not model.retirement_date:
        return list(model.warnings)
    lines = [say(request, "model.retires", date=model.retirement_date, successor=model.successor or "-")]
    if model.warnings:  # in English, and about nothing else
        lines.append(say(request, "model.retiring"))
        successor = next((one for one in known if one.id == model.successor and one.prices), None)
        if successor is not None:
            price = dollars(successor.prices[0].micros)
            lines.append(say(request, "model.successor", successor=successor.id, price=price))
    return lines


def _size_name(model: Model, name: str) -> str:
    price = next((one.micros for one in model.prices if one.image_size == name), None)
    return f"{name} · {dollars(price)}" if price else name
