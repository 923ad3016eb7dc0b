"""From a draft to a request: everything that is wrong is found at once, and nothing is stored before.

What needs no look-up is checked first; then all pictures named are looked up together. A foreign picture is reported
exactly like an unknown one.
"""

from __future__ import annotations

from datetime import timedelta

from nanobatch_catalog import Model, find_model, list_models
from nanobatch_gateway.domain import (
    MAX_PROMPT_CHARACTERS,
    MAX_PROMPTS,
    MAX_VARIATIONS,
    Caller,
    ExecutionDraft,
    ExecutionRequest,
    Mode,
    Output,
    Prompt,
    PromptDraft,
    UnknownPolicy,
)
from nanobatch_gateway.fields import Violations, listed, shown
from nanobatch_gateway.named_pictures import NamedPictures
from nanobatch_gateway.ports import Images
from nanobatch_gateway.prompts import split_prompts, whole_prompt
from nanobatch_runtime.clock import Clock
from nanobatch_runtime.ids import new_id

DEFAULT_MAX_ATTEMPTS = 3
MAX_ATTEMPTS = 10
MIN_TIMEOUT = timedelta(seconds=1)
MAX_LABELS = 32
MAX_LABEL_CHARACTERS = 63
_INT32_MAX = 2**31 - 1


class Validator:
    """Makes requests out of drafts."""

    def __init__(self, images: Images, clock: Clock) -> None:
        """``images`` says which pictures the caller may use; ``clock`` only orders the models in a sentence."""
        self._images = images
        self._clock = clock

    async def validate(self, draft: ExecutionDraft, caller: Caller, *, key_wanted: bool = True) -> ExecutionRequest:
        """Return the request with its defaults filled in. Raises InvalidRequestError with every violation.

        ``key_wanted`` is off for estimates, which ignore keys. A key for a model that needs none is dropped unread.
        """
        found = Violations()
        model = self.model(found, "model", draft.model)
        pictures = NamedPictures(found, model)
        for name in ("request_id", "workflow_id", "parent_execution_id"):
            if key_wanted or name != "request_id":
                found.id(name, getattr(draft, name))
        api_key = _key(found, draft, model) if key_wanted else ""
        prompts = _prompts(found, draft, model, pictures)
        pictures.note("reference_image_ids", draft.reference_image_ids)
        _output(found, draft.output, model)
        found.between("variations", draft.variations, 1, MAX_VARIATIONS)
        found.between("seed", draft.seed, 0, _INT32_MAX)
        mode = _mode(found, draft.mode)
        found.not_negative("max_cost_micros", draft.max_cost_micros)
        found.between("max_attempts", draft.max_attempts, 1, MAX_ATTEMPTS)
        _timeout(found, draft.timeout, model)
        on_unknown = _on_unknown(found, draft.on_unknown)
        _labels(found, draft)
        await pictures.look_up(self._images, caller)
        found.raise_any()
        if model is None:  # reported above
            raise AssertionError
        variations = draft.variations or 1
        return ExecutionRequest(
            model=model,
            prompts=tuple(
                Prompt(
                    prompt.text,
                    variations if prompt.variations is None else prompt.variations,
                    prompt.source_image_id,
                    prompt.reference_image_ids,
                )
                for prompt in prompts
            ),
            variations=variations,
            max_attempts=draft.max_attempts or DEFAULT_MAX_ATTEMPTS,
            timeout=draft.timeout or model.default_timeout,
            on_unknown=on_unknown,
            mode=mode,
            request_id=draft.request_id or new_id(),  # so that storage knows a repeat on the way to it, at least
            workflow_id=draft.workflow_id,
            parent_execution_id=draft.parent_execution_id,
            api_key=api_key,
            prompt_prefix=draft.prompt_prefix,
            prompt_suffix=draft.prompt_suffix,
            reference_image_ids=draft.reference_image_ids,
            output=draft.output,
            seed=draft.seed,
            max_cost_micros=draft.max_cost_micros,
            labels=dict(draft.labels),
        )

    def model(self, found: Violations, field: str, model_id: str) -> Model | None:
        """Return the model of that id, or None and a violation that lists the known ones."""
        known = listed([model.id for model in list_models(self._clock.now().date())])
        if not model_id:
            found.add(field, f"The model is missing; one of: {known}.", "REQUIRED")
            return None
        model = find_model(model_id)
        if model is None:
            found.add(field, f"There is no model {shown(model_id)}; one of: {known}.", "UNKNOWN_MODEL")
        return model


def prompt_limit(model: Model | None) -> int:
    """Return how many characters a whole prompt may have, prefix and suffix included."""
    return MAX_PROMPT_CHARACTERS if model is None else min(MAX_PROMPT_CHARACTERS, model.max_prompt_characters)


def characters_around(prefix: str, suffix: str) -> int:
    """Return how many characters prefix and suffix add to a prompt, the spaces between included."""
    return len(whole_prompt(prefix, "x", suffix)) - 1


def _key(found: Violations, draft: ExecutionDraft, model: Model | None) -> str:
    if draft.credential_id is not None:
        found.unsupported("credential_id", "A saved key")
        return ""
    if model is not None and not model.needs_key:
        return ""
    return found.api_key("api_key", draft.api_key, required_for="" if model is None else model.id)


def _prompts(
    found: Violations, draft: ExecutionDraft, model: Model | None, pictures: NamedPictures
) -> tuple[PromptDraft, ...]:
    """Check the prompts, whichever of the two fields holds them, and return them."""
    limit = prompt_limit(model)
    around = characters_around(draft.prompt_prefix, draft.prompt_suffix)
    for field in ("prompt_prefix", "prompt_suffix"):
        found.plain_text(field, getattr(draft, field))
    if around >= limit:
        found.add(
            "prompt_prefix" if len(draft.prompt_prefix) >= len(draft.prompt_suffix) else "prompt_suffix",
            f"Prefix and suffix take {around:,} of {limit:,} characters and leave no room for a prompt.",
            "TOO_LONG",
        )
        around = 0
    if draft.prompts_text and draft.prompts:
        found.add("prompts_text", "Give either prompts_text or prompts, not both.", "CONFLICT")
    if draft.prompts_text and not draft.prompts:
        found.plain_text("prompts_text", draft.prompts_text)
        texts = split_prompts(draft.prompts_text)
        _count(found, "prompts_text", len(texts))
        for number, text in enumerate(texts[:MAX_PROMPTS], start=1):
            if len(text) + around > limit:
                found.prompt_text("prompts_text", text, name=f"Prompt {number}", around=around, limit=limit)
        return tuple(PromptDraft(text) for text in texts)
    _count(found, "prompts", len(draft.prompts))
    for number, prompt in enumerate(draft.prompts[:MAX_PROMPTS]):
        path = f"prompts[{number}]"
        found.prompt_text(f"{path}.text", prompt.text, name="The prompt", around=around, limit=limit)
        pictures.note_one(f"{path}.source_image_id", prompt.source_image_id)
        pictures.note(f"{path}.reference_image_ids", prompt.reference_image_ids)
        found.between(f"{path}.variations", prompt.variations, 1, MAX_VARIATIONS)
    return draft.prompts


def _count(found: Violations, field: str, count: int) -> None:
    if count == 0:
        found.add(field, f"There are 0 prompts; 1 to {MAX_PROMPTS} are taken.", "REQUIRED")
    elif count > MAX_PROMPTS:
        found.add(field, f"There are {count:,} prompts; 1 to {MAX_PROMPTS} are taken.", "TOO_MANY")


def _output(found: Violations, output: Output, model: Model | None) -> None:
    if model is not None and output.aspect_ratio and output.aspect_ratio not in model.aspect_ratios:
        found.add(
            "output.aspect_ratio",
            f"{model.id} has no ratio {shown(output.aspect_ratio)}; one of: {listed(model.aspect_ratios)}.",
            "NOT_OFFERED",
        )
    if model is not None and output.image_size and output.image_size not in model.image_sizes:
        offer = (
            f"{model.id} has no size {shown(output.image_size)}; one of: {listed(model.image_sizes)}."
            if model.image_sizes
            else f"{model.id} has one size; leave the field out."
        )
        found.add("output.image_size", offer, "NOT_OFFERED")
    if output.format:
        found.unsupported("output.format", "Another file format")
    if output.match_source_size:
        found.unsupported("output.match_source_size", "Matching the size of the source picture")


def _mode(found: Violations, number: int) -> Mode:
    if number not in set(Mode):
        found.add("mode", f"There is no mode number {number}.", "UNKNOWN_VALUE")
        return Mode.STANDARD
    mode = Mode(number)
    if mode is Mode.ECONOMY:
        found.unsupported("mode", "ECONOMY")
    return mode or Mode.STANDARD


def _on_unknown(found: Violations, number: int) -> UnknownPolicy:
    if number not in set(UnknownPolicy):
        found.add("on_unknown", f"There is no policy number {number}.", "UNKNOWN_VALUE")
        return UnknownPolicy.RETRY
    return UnknownPolicy(number) or UnknownPolicy.RETRY


def _timeout(found: Violations, timeout: timedelta | None, model: Model | None) -> None:
    longest = None if model is None else model.max_timeout
    if timeout is None or (timeout >= MIN_TIMEOUT and (longest is None or timeout <= longest)):
        return
    ceiling = "the model's limit" if longest is None else f"{longest.total_seconds():g} s"
    found.add("timeout", f"{timeout.total_seconds():g} s is not between 1 s and {ceiling}.", "OUT_OF_RANGE")


def _labels(found: Violations, draft: ExecutionDraft) -> None:
    if len(draft.labels) > MAX_LABELS:
        found.add("labels", f"{len(draft.labels)} labels are too many; at most {MAX_LABELS} are taken.", "TOO_MANY")
    for key, value in sorted(draft.labels.items())[:MAX_LABELS]:
        path = f"labels[{shown(key)}]"
        if not key:
            found.add(path, "A label's key is empty.", "REQUIRED")
        for text, what in ((key, "key"), (value, "value")):
            if len(text) > MAX_LABEL_CHARACTERS:
                found.add(path, f"The {what} is longer than {MAX_LABEL_CHARACTERS} characters.", "TOO_LONG")
            found.plain_text(path, text, f"The {what}")
