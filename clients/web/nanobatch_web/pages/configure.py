"""The first step: what is to be made, with what, and who pays."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from nanobatch_client import Model, NanobatchError, split_prompts
from nanobatch_web import texts
from nanobatch_web.pages.context import Context, say
from nanobatch_web.pages.elements import element
from nanobatch_web.pages.form import Form
from nanobatch_web.pages.money import dollars, micros

DRAFT_KEY = "nanobatch.draft"
_SAMPLES = {
    "en": "A red fox asleep in fresh snow, early morning light\n\n"
    "A lighthouse on a cliff during a storm, oil painting\n\n"
    "A small reading nook under a staircase, warm lamp light",
    "fr": "Un renard roux endormi dans la neige fraîche, lumière du matin\n\n"
    "Un phare sur une falaise pendant la tempête, peinture à l'huile\n\n"
    "Un coin lecture sous un escalier, lumière chaude d'une lampe",
}
_MAX_FILE = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Configure:
    """The step's components, for the steps that follow."""

    models: gr.State
    model: gr.Dropdown
    facts: gr.HTML
    key: gr.Textbox
    key_status: gr.HTML
    prompts: gr.Textbox
    references: gr.HTML
    ratio: gr.Radio
    size: gr.Radio
    variations: gr.Slider
    cap: gr.Number
    next: gr.Button

    @property
    def fields(self) -> list[Any]:
        """Everything that makes a :class:`Form`, in the order of :func:`form_of`. The key is not among them."""
        return [self.model, self.prompts, self.references, self.ratio, self.size, self.variations, self.cap]

    @property
    def triggers(self) -> list[Any]:
        """What tells that one of :attr:`fields` has changed."""
        return [field.change for field in self.fields]

    @property
    def offered(self) -> list[Any]:
        """What depends on the model, in the order of :func:`offer`."""
        return [self.facts, self.ratio, self.size, self.key, self.references]


def form_of(
    model: str | None,
    prompts: str,
    references: dict[str, Any],
    ratio: str,
    size: str,
    variations: float,
    cap: float | None,
) -> Form:
    """Return the form of the step's values."""
    return Form(
        model=model or "",
        prompts=tuple(split_prompts(prompts or "")),
        references=tuple((references or {}).get("ids") or ()),
        aspect_ratio=ratio or "",
        image_size=size or "",
        variations=int(variations or 1),
        cap_micros=micros(cap),
    )


def build(context: Context) -> Configure:
    """Lay the step out and wire what happens inside it."""
    label = context.label
    models = gr.State([])
    with gr.Row(equal_height=False):
        with gr.Column(scale=3):
            prompts = gr.Textbox(
                label=label("prompts.label"),
                info=label("prompts.info"),
                placeholder=label("prompts.placeholder"),
                lines=10,
                max_lines=24,
                elem_id="nb-prompts",
            )
            element("nb-prompt-list", {"source": "#nb-prompts textarea"})
            with gr.Row():
                samples = gr.Button(label("prompts.sample"), size="sm")
                file = gr.UploadButton(label("prompts.file"), file_types=[".txt", ".csv"], size="sm")
            references = element("nb-references", {"ids": [], "limit": 3}, elem_id="nb-references")
        with gr.Column(scale=2):
            model = gr.Dropdown(label=label("model.label"), choices=[], elem_id="nb-model")
            facts = gr.HTML(elem_id="nb-facts")
            key = gr.Textbox(label=label("key.label"), info=label("key.info"), type="password", elem_id="nb-key")
            check = gr.Button(label("key.check"), size="sm", elem_id="nb-check")
            key_status = gr.HTML(elem_id="nb-key-status")
            ratio = gr.Radio(label=label("ratio.label"), choices=[], elem_id="nb-ratio")
            size = gr.Radio(label=label("size.label"), choices=[], elem_id="nb-size")
            variations = gr.Slider(1, 4, value=1, step=1, label=label("variations.label"))
            cap = gr.Number(label=label("cap.label"), info=label("cap.info"), value=None, minimum=0, step=0.01)
    following = gr.Button(label("configure.next"), variant="primary", elem_id="nb-next")
    step = Configure(
        models, model, facts, key, key_status, prompts, references, ratio, size, variations, cap, following
    )

    def show_model(
        model_id: str,
        known: list[Model],
        chosen_ratio: str,
        chosen_size: str,
        held: dict[str, Any],
        request: gr.Request,
    ) -> tuple[Any, ...]:
        return offer(model_id, known, chosen_ratio, chosen_size, held, request)

    async def check_key(model_id: str, secret: str, request: gr.Request) -> str:
        try:
            viewer = await context.viewer(request)
            found = await viewer.client.check_api_key(model_id, secret.strip())
        except NanobatchError as error:
            return status(error.message, good=False)
        if not found.valid:
            return status(f"{say(request, 'key.bad')} {found.message}", good=False)
        if not found.model_available:
            return status(f"{say(request, 'key.no_model')} {found.message}", good=False)
        return status(say(request, "key.good"), good=True)

    def load_file(name: str, request: gr.Request) -> Any:
        try:
            return prompts_of_file(Path(name))
        except ValueError:
            gr.Warning(escape(say(request, "prompts.file_bad")))
            return gr.skip()

    model.change(
        show_model,
        [model, models, ratio, size, references],
        step.offered,
        show_progress="hidden",
        api_visibility="private",
    )
    check.click(check_key, [model, key], key_status, api_visibility="private")
    key.input(lambda: "", None, key_status, show_progress="hidden", api_visibility="private")
    samples.click(_samples, None, prompts, show_progress="hidden", api_visibility="private")
    file.upload(load_file, file, prompts, api_visibility="private")
    return step


def offer(
    model_id: str | None,
    known: list[Model],
    ratio: str | None,
    size: str | None,
    held: dict[str, Any] | None,
    request: gr.Request,
) -> tuple[Any, ...]:
    """Return what a model offers, and of what was chosen before what it still offers."""
    picked = next((one for one in known if one.id == model_id), None)
    if picked is None:
        return (gr.skip(),) * 5
    ratios = [(say(request, "ratio.default"), ""), *((name, name) for name in picked.aspect_ratios)]
    sizes = [(_size_name(picked, name), name) for name in picked.image_sizes]
    return (
        _facts(picked, request),
        gr.Radio(choices=ratios, value=ratio if ratio in picked.aspect_ratios else ""),
        gr.Radio(
            choices=sizes,
            value=size if size in picked.image_sizes else next(iter(picked.image_sizes), None),
            visible=len(sizes) > 1,
        ),
        gr.Textbox(visible=picked.needs_key),
        {**(held or {}), "limit": picked.max_reference_images},
    )


def _samples(request: gr.Request) -> str:
    return _SAMPLES[texts.language_of(dict(request.headers))]


def prompts_of_file(path: Path) -> str:
    """Return a file's prompts as the box takes them; of a CSV the column ``prompt``, or the first. Raises ValueError."""
    if path.stat().st_size > _MAX_FILE:
        raise ValueError
    text = path.read_bytes().decode("utf-8-sig")
    if path.suffix.lower() != ".csv":
        return text
    rows = [row for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    if not rows:
        return ""
    names = [cell.strip().lower() for cell in rows[0]]
    column = names.index("prompt") if "prompt" in names else 0
    body = rows[1:] if "prompt" in names else rows
    return "\n\n".join(row[column].strip() for row in body if len(row) > column)


def _facts(model: Model, request: gr.Request) -> str:
    lines = []
    if model.prices:
        prices = ", ".join(
            f"{price.image_size} {dollars(price.micros)}".strip() if price.micros else say(request, "model.free")
            for price in model.prices
        )
        lines.append(say(request, "model.price", price=prices))
    lines.append(
        say(request, "model.references", count=model.max_reference_images)
        if model.max_reference_images
        else say(request, "references.none")
    )
    lines += model.warnings
    body = "".join(f"<li>{escape(line)}</li>" for line in lines)
    where = ""
    if model.key_url:
        link = escape(model.key_url, quote=True)
        where = f'<a href="{link}" target="_blank" rel="noopener noreferrer">{escape(say(request, "key.where"))}</a>'
    return f'<ul class="nb-facts">{body}</ul>{where}'


def _size_name(model: Model, name: str) -> str:
    price = next((one.micros for one in model.prices if one.image_size == name), None)
    return f"{name} · {dollars(price)}" if price else name


def status(sentence: str, *, good: bool) -> str:
    """Return a line about the key, as text."""
    kind = "good" if good else "bad"
    return f'<p class="nb-status nb-{kind}" role="status">{escape(sentence.strip())}</p>'
