"""The wizard: Configure, Review, Processing, Results. The run itself lives on the server, whatever becomes of the page."""

from __future__ import annotations

import uuid
from typing import Any

import gradio as gr

from nanobatch_client import Client, InvalidRequestError, NanobatchError, NotFoundError
from nanobatch_web.pages import configure, problems, review
from nanobatch_web.pages.arrival import FORGET_ARRIVAL, arrive
from nanobatch_web.pages.configure import DRAFT_KEY, form_of
from nanobatch_web.pages.context import Context, say, warn
from nanobatch_web.pages.elements import element
from nanobatch_web.pages.form import Form, Reviewed
from nanobatch_web.pages.form import review as ask
from nanobatch_web.pages.offer import offer

CONFIGURE, REVIEW, PROCESSING, RESULTS = 1, 2, 3, 4
# Where the run is: the address of this very page, so that a reload, a bookmark and another device find it.
_SHOW_IN_ADDRESS = """(id) => {
    const address = new URL(location.href);
    if (id) address.searchParams.set('execution', id); else address.searchParams.delete('execution');
    history.replaceState(null, '', address);
}"""
# What is changed in the review is changed in the form: whoever goes back for a key, or reloads, finds it there.
_WRITE_BACK = """(value) => {
    document.querySelector('nb-references').own = value.form.own;
    return value.form.prompts.join('\\n\\n');
}"""
# The review asks whether there is a key. What it is goes to the server with the start alone.
_HIDE_KEY = "(...fields) => [...fields.slice(0, -1), fields.at(-1)?.trim() ? 'given' : '']"
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
_LISTED: dict[str, Any] = {"api_visibility": "private"}


class Wizard:
    """The page inside the current blocks, and what its buttons do."""

    def __init__(self, context: Context, page: gr.Blocks) -> None:
        """Lay out and wire ``page``."""
        label = context.label
        self._context = context
        self._draft = gr.BrowserState({}, storage_key=DRAFT_KEY, secret="nanobatch")  # noqa: S106  # no key is kept in it
        self._execution = gr.Textbox(visible=False, elem_id="nb-execution")
        self._reconnect = element("nb-reconnect", {"waiting": False})
        with gr.Walkthrough(selected=CONFIGURE, elem_id="nb-steps") as steps:
            with gr.Step(label("step.configure"), id=CONFIGURE):
                element("nb-running", {})
                self._first = configure.build(context)
            with gr.Step(label("step.review"), id=REVIEW):
                self._second = review.build(context)
            with gr.Step(label("step.processing"), id=PROCESSING):
                self._board = element("nb-run", {"execution": ""}, elem_id="nb-run")
            with gr.Step(label("step.results"), id=RESULTS):
                self._outcome = element("nb-outcome", {"execution": ""}, elem_id="nb-outcome")
                self._again = gr.Button(label("run.new"), elem_id="nb-again")
        self._steps = steps
        self._wire(page)

    def _wire(self, page: gr.Blocks) -> None:
        first, second, steps = self._first, self._second, self._steps
        filled = [first.model, first.prompts, first.variations, first.cap, *first.offered]
        loaded = [steps, self._execution, self._board, self._outcome, self._reconnect, *filled]
        begun = gr.on([page.load, self._reconnect.submit], self._load, self._draft, loaded, **_QUIET)
        begun.then(None, self._reconnect, None, js=FORGET_ARRIVAL)
        gr.on(
            first.triggers,
            _drafted,
            first.fields,
            self._draft,
            trigger_mode="always_last",
            **_QUIET,
        )
        reviewed = [steps, second.prompts, second.problems, second.summary, second.start, first.errors]
        first.next.click(self._to_review, [*first.fields, first.key], reviewed, js=_HIDE_KEY, **_LISTED)
        second.prompts.input(None, second.prompts, first.prompts, js=_WRITE_BACK)
        second.prompts.input(
            self._edited,
            second.prompts,
            [second.problems, second.summary, second.start],
            trigger_mode="always_last",
            **_QUIET,
        )
        second.back.click(lambda: gr.Walkthrough(selected=CONFIGURE), None, steps, **_QUIET)
        second.start.click(
            self._begin,
            [second.prompts, first.key],
            [steps, self._execution, self._board, second.problems, second.summary, first.key, first.errors],
            **_LISTED,
        )
        self._execution.change(None, self._execution, None, js=_SHOW_IN_ADDRESS)
        self._board.submit(_led_on, self._board, [steps, self._outcome], **_QUIET)
        self._again.click(
            lambda: (gr.Walkthrough(selected=CONFIGURE), "", {"execution": ""}, {"execution": ""}),
            None,
            [steps, self._execution, self._board, self._outcome],
            **_QUIET,
        )

    async def _load(self, stored: dict[str, Any], request: gr.Request) -> tuple[Any, ...]:
        stored = stored or {}
        wanted = request.query_params.get("execution", "")
        try:
            client = (await self._context.viewer(request)).client
            models = await client.list_models()
            step = await _step_of(client, wanted)
            stored = await self._arrived(client, stored, request)
        except NanobatchError:
            # What was filled in before stays as it is; nb-reconnect says so, and calls again when somebody answers.
            nothing = (gr.skip(),) * (4 + len(self._first.offered))
            step = PROCESSING if wanted else CONFIGURE
            return (*_at(step, wanted), {"waiting": True}, *nothing)
        ids = [model.id for model in models]
        # Who comes for the first time can try everything without a key, and without paying.
        first = next((model.id for model in models if not model.needs_key), next(iter(ids), None))
        picked = stored.get("model") if stored.get("model") in ids else first
        held = {"ids": list(stored.get("references") or []), "own": stored.get("own") or []}
        return (
            *_at(step, wanted),
            {"waiting": False},
            gr.Dropdown(choices=[(model.display_name or model.id, model.id) for model in models], value=picked),
            stored.get("text") or gr.skip(),  # who types before this arrives keeps the words
            stored.get("variations") or 1,
            stored.get("cap"),
            *offer(picked, models, stored.get("ratio"), stored.get("size"), held, request),
        )

    async def _arrived(self, client: Client, stored: dict[str, Any], request: gr.Request) -> dict[str, Any]:
        try:
            return await arrive(client, stored, request.query_params)
        except (
            NotFoundError,
            InvalidRequestError,
        ) as error:  # an old address: the draft as it was is better than nothing
            warn(request, error)
            return stored

    async def _to_review(
        self,
        model: str | None,
        text: str,
        held: dict[str, Any],
        ratio: str,
        size: str,
        variations: float,
        cap: float | None,
        key: str,
        request: gr.Request,
    ) -> tuple[Any, ...]:
        form = form_of(model, text, held, ratio, size, variations, cap)
        try:
            client = (await self._context.viewer(request)).client
            reviewed = await ask(client, form)
            keyless = not key and any(known.needs_key for known in await client.list_models() if known.id == form.model)
        except NanobatchError as error:
            warn(request, error)
            return (gr.skip(),) * 6
        if problems.elsewhere(reviewed.problems, request):
            places = problems.at_fields(reviewed.problems, request)
            if keyless:
                places.setdefault(problems.KEY, [say(request, "review.keyless")])
            return *((gr.skip(),) * 5), {"places": places}
        summary, wrong, button = review.shown(form, reviewed, request, keyless=keyless)
        value = {"form": form.stored(), "nonce": str(uuid.uuid4()), "keyless": keyless}
        return gr.Walkthrough(selected=REVIEW), value, review.found(value, wrong), summary, button, {"places": {}}

    async def _edited(self, value: dict[str, Any], request: gr.Request) -> tuple[Any, ...]:
        value = value or {}
        form = Form.of(value.get("form") or {})
        try:
            reviewed = await ask((await self._context.viewer(request)).client, form)
        except NanobatchError as error:
            warn(request, error)
            return (gr.skip(),) * 3
        summary, wrong, button = review.shown(form, reviewed, request, keyless=bool(value.get("keyless")))
        return review.found(value, wrong), summary, button

    async def _begin(self, value: dict[str, Any], key: str, request: gr.Request) -> tuple[Any, ...]:
        value = value or {}
        form = Form.of(value.get("form") or {})
        same = gr.skip()
        try:
            started = await review.start((await self._context.viewer(request)).client, form, key or "", _nonce(value))
        except InvalidRequestError as error:
            if problems.elsewhere(error.violations, request):
                places = problems.at_fields(error.violations, request)
                return gr.Walkthrough(selected=CONFIGURE), same, same, same, same, same, {"places": places}
            summary, wrong, _ = review.shown(form, Reviewed(problems=error.violations), request)
            return same, same, same, review.found(value, wrong), summary, same, same
        except NanobatchError as error:
            warn(request, error)
            return (same,) * 7
        # The key goes with the run: it does not stay in the page.
        return gr.Walkthrough(selected=PROCESSING), started, {"execution": started}, same, same, "", same


def _led_on(value: dict[str, Any]) -> tuple[Any, ...]:
    """Show what came out of a run that has ended, to who watches it: who writes the next batch meanwhile goes on."""
    return gr.Walkthrough(selected=RESULTS) if value.get("inSight") else gr.skip(), value


def _nonce(value: dict[str, Any]) -> str:
    """Return the nonce that the review was shown with; a browser that lost it starts anew."""
    try:
        return str(uuid.UUID(value.get("nonce")))
    except (ValueError, AttributeError, TypeError):
        return str(uuid.uuid4())


async def _step_of(client: Client, wanted: str) -> int:
    """Return where a visitor of a run belongs. Raises NanobatchError where nobody can say."""
    if not wanted:
        return CONFIGURE
    try:
        execution = await client.get_execution(wanted)
    except (NotFoundError, InvalidRequestError):
        return PROCESSING  # which says that there is no such run
    return RESULTS if execution.state.is_final else PROCESSING


def _at(step: int, execution: str) -> tuple[Any, ...]:
    """Return the steps, the run's id, the board and the outcome as they are at a step."""
    ended = step == RESULTS
    board = {"execution": execution, "ended": ended}
    return gr.Walkthrough(selected=step), execution, board, {"execution": execution if ended else ""}


def _drafted(
    model: str | None,
    text: str,
    held: dict[str, Any],
    ratio: str,
    size: str,
    variations: float,
    cap: float | None,
) -> dict[str, Any]:
    """Return what survives a reload: everything but the key."""
    return {
        "model": model,
        "text": text,
        "references": (held or {}).get("ids") or [],
        "own": (held or {}).get("own") or [],
        "ratio": ratio,
        "size": size,
        "variations": variations,
        "cap": cap,
    }
