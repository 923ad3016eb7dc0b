"""The first step: what is to be made, with what, and who pays."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from nanobatch_client import NanobatchError, split_prompts
from nanobatch_web import refusals
from nanobatch_web.pages.context import Context, language_of, say, warn
from nanobatch_web.pages.elements import element
from nanobatch_web.pages.files import FileError, prompts_of_file
from nanobatch_web.pages.form import Form, prompts_of
from nanobatch_web.pages.money import micros
from nanobatch_web.pages.offer import PROMPT_BOX, offer

DRAFT_KEY = "nanobatch.draft"
_SAMPLES = {
    "en": "A red fox asleep in fresh snow, early morning light\n\n"
    "A lighthouse on a cliff during a storm, oil painting\n\n"
    "A small reading nook under a staircase, warm lamp light",
    "fr": "Un renard roux endormi dans la neige fraîche, lumière du matin\n\n"
    "Un phare sur une falaise pendant la tempête, peinture à l'huile\n\n"
    "Un coin lecture sous un escalier, lumière chaude d'une lampe",
}


@dataclass(frozen=True, slots=True)
class Configure:
    """The step's components, for the steps that follow."""

    model: gr.Dropdown
    facts: gr.HTML
    key: gr.Textbox
    check: gr.Button
    key_status: gr.HTML
    prompts: gr.Textbox
    listed: gr.HTML
    references: gr.HTML
    ratio: gr.Radio
    size: gr.Radio
    variations: gr.Slider
    cap: gr.Number
    errors: gr.HTML
    """Value: ``{"places": at_fields(...)}``."""
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
        return [
            *(self.facts, self.ratio, self.size, self.key, self.check, self.key_status),
            *(self.references, self.listed),
        ]


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
        own=prompts_of((references or {}).get("own")),
        aspect_ratio=ratio or "",
        image_size=size or "",
        variations=int(variations or 1),
        cap_micros=micros(cap),
    )


def build(context: Context) -> Configure:
    """Lay the step out and wire what happens inside it."""
    label = context.label
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
            listed = element("nb-prompt-list", {"source": PROMPT_BOX})
            with gr.Row():
                samples = gr.Button(label("prompts.sample"), size="sm")
                file = gr.UploadButton(label("prompts.file"), file_types=[".txt", ".csv"], size="sm")
            references = element("nb-references", {"ids": [], "limit": 3}, elem_id="nb-references")
        with gr.Column(scale=2):
            model = gr.Dropdown(label=label("model.label"), choices=[], elem_id="nb-model")
            facts = gr.HTML(elem_id="nb-facts")
            key = gr.Textbox(
                label=label("key.label"),
                info=label("key.info"),
                type="password",
                elem_id="nb-key",
                visible=False,
                # Browsers offer to keep what looks like a login, except where a new password is being made up.
                html_attributes=gr.InputHTMLAttributes(
                    autocomplete="new-password", autocorrect="off", autocapitalize="off", spellcheck=False
                ),
            )
            check = gr.Button(label("key.check"), size="sm", elem_id="nb-check", visible=False)
            key_status = gr.HTML(elem_id="nb-key-status")
            ratio = gr.Radio(label=label("ratio.label"), choices=[], elem_id="nb-ratio")
            size = gr.Radio(label=label("size.label"), choices=[], elem_id="nb-size")
            variations = gr.Slider(1, 4, value=1, step=1, label=label("variations.label"), elem_id="nb-variations")
            cap = gr.Number(label=label("cap.label"), info=label("cap.info"), value=None, step=0.01, elem_id="nb-cap")
    gr.HTML(elem_id="nb-problems")
    errors = element("nb-field-errors", {"places": {}})
    following = gr.Button(label("configure.next"), variant="primary", elem_id="nb-next")
    step = Configure(
        model=model,
        facts=facts,
        key=key,
        check=check,
        key_status=key_status,
        prompts=prompts,
        listed=listed,
        references=references,
        ratio=ratio,
        size=size,
        variations=variations,
        cap=cap,
        errors=errors,
        next=following,
    )

    async def show_model(
        model_id: str, chosen_ratio: str, chosen_size: str, held: dict[str, Any], request: gr.Request
    ) -> tuple[Any, ...]:
        try:
            known = await (await context.viewer(request)).client.list_models()
        except NanobatchError as error:
            warn(request, error)
            return (gr.skip(),) * len(step.offered)
        return offer(model_id, known, chosen_ratio, chosen_size, held, request)

    async def check_key(model_id: str, secret: str, request: gr.Request) -> str:
        try:
            viewer = await context.viewer(request)
            found = await viewer.client.check_api_key(model_id, secret.strip())
        except NanobatchError as error:
            return status(refusals.told(language_of(request), error), good=False)
        if not found.valid:
            return status(f"{say(request, 'key.bad')} {found.message}", good=False)
        if not found.model_available:
            return status(f"{say(request, 'key.no_model')} {found.message}", good=False)
        return status(say(request, "key.good"), good=True)

    def load_file(name: str, request: gr.Request) -> tuple[Any, dict[str, Any]]:
        try:
            return prompts_of_file(Path(name)), {"places": {}}
        except FileError as error:
            return gr.skip(), {"places": {"#nb-prompts": [say(request, error.key, **error.facts)]}}

    model.change(
        show_model,
        [model, ratio, size, references],
        step.offered,
        show_progress="hidden",
        api_visibility="private",
    )
    check.click(check_key, [model, key], key_status, api_visibility="private")
    key.input(lambda: "", None, key_status, show_progress="hidden", api_visibility="private")
    samples.click(_samples, None, prompts, show_progress="hidden", api_visibility="private")
    file.upload(load_file, file, [prompts, errors], api_visibility="private")
    return step


def _samples(request: gr.Request) -> str:
    return _SAMPLES[language_of(request)]


def status(sentence: str, *, good: bool) -> str:
    """Return a line about the key, as text."""
    kind = "good" if good else "bad"
    return f'<p class="nb-status nb-{kind}" role="status">{escape(sentence.strip())}</p>'
