"""The REST calls of the batch: create from a form, look, list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from nanobatch_gateway.domain import ExecutionDraft, InvalidRequestError, Output, PromptDraft, UnknownPolicy
from nanobatch_gateway.fields import MAX_PAGE_SIZE, Violations, required_id, shown
from nanobatch_gateway.http.access import caller_of
from nanobatch_gateway.http.forms import Form, open_form
from nanobatch_gateway.http.shapes import (
    Accepted,
    ExecutionView,
    FailedResultView,
    ResultView,
    Success,
    SuccessList,
    accepted,
    execution_view,
    result_view,
)
from nanobatch_gateway.linking import Linker
from nanobatch_gateway.pages import ListResults
from nanobatch_gateway.ports import Executions
from nanobatch_gateway.submit import PICTURES, SubmitExecution

DEFAULT_MODEL = "gemini-2.5-flash-image"
IDEMPOTENCY_KEY = "Idempotency-Key"

FIELDS = {
    "api_key": "key of the provider; not needed for the sandbox",
    "prompts_text": "one prompt per paragraph; blank lines separate, as real line breaks or as the characters \\n\\n",
    "model": f"id of a model ({DEFAULT_MODEL})",
    "aspect_ratio": "like 16:9 (the model's default)",
    "image_size": "like 2K (the model's default)",
    "variations": "pictures per prompt, 1 to 4 (1)",
    "seed": "for providers that take one",
    "prompt_prefix": "text before every prompt",
    "prompt_suffix": "text behind every prompt",
    "max_cost_micros": "spend cap, millionths of a US dollar (none)",
    "max_attempts": "1 to 10 (3)",
    "on_unknown": "what follows a call that may have been charged: retry or fail (retry)",
    "workflow_id": "the workflow it belongs to (your default one)",
}
"""Text fields of the form, each with what it means and its default."""

_NUMBERS = ("variations", "seed", "max_cost_micros", "max_attempts")
_OWN_NAMES = {
    "request_id": IDEMPOTENCY_KEY,
    "output.aspect_ratio": "aspect_ratio",
    "output.image_size": "image_size",
    "prompts": "prompts_text",
}
"""What REST calls the fields of the contract, where the name differs."""


@dataclass(frozen=True, slots=True)
class BatchUseCases:
    """What the routes call."""

    submit: SubmitExecution
    executions: Executions
    list_results: ListResults
    linker: Linker


def batch_routes(use: BatchUseCases) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.post(
        "/api/nano-banana/execute",
        response_model=Success[Accepted],
        openapi_extra={"requestBody": _schema(), "parameters": [KEY_HEADER]},
        summary="Start an execution",
    )
    async def execute(request: Request) -> Response:
        """Take 1 to 100 prompts and reference pictures, and begin. Nothing is stored where anything is wrong."""
        found = Violations()
        async with open_form(request, FIELDS, found) as form:
            draft = draft_of(form, request, found)
            async with named_as_here():
                execution = await use.submit(caller_of(request), draft, form.incoming(), found=found.found)
        return as_json(Success[Accepted](data=accepted(execution)))

    @router.get("/api/executions/{execution_id}", response_model=Success[ExecutionView], summary="Look at an execution")
    async def get_execution(request: Request, execution_id: str) -> Response:
        """Where it is, in counts and money."""
        stored = await use.executions.get(caller_of(request), required_id("execution_id", execution_id))
        return as_json(Success[ExecutionView](data=execution_view(stored.execution)))

    @router.get(
        "/api/executions/{execution_id}/results",
        response_model=SuccessList[FailedResultView | ResultView],
        summary="List its results",
    )
    async def list_results(request: Request, execution_id: str) -> Response:
        """All of them, by prompt and variation."""
        caller, views, token = caller_of(request), [], ""
        while True:
            page = await use.list_results(caller, execution_id, states=(), size=MAX_PAGE_SIZE, token=token)
            views += [result_view(use.linker.result(caller, result)) for result in page.items]
            token = page.cursor
            if not token:
                return as_json(SuccessList[FailedResultView | ResultView](data=views))

    return router


def as_json(body: BaseModel) -> Response:
    """Return an answer that nobody keeps."""
    return Response(body.model_dump_json(), media_type="application/json", headers={"cache-control": "no-store"})


def draft_of(
    form: Form, request: Request, found: Violations, *, prompts: tuple[PromptDraft, ...] = ()
) -> ExecutionDraft:
    """Return what a form asks for, unchecked; numbers that are none are noted."""
    texts = form.texts
    numbers: dict[str, int | None] = {name: _number(found, name, texts.get(name, "")) for name in _NUMBERS}
    policy = texts.get("on_unknown", "").strip().upper()
    if policy and policy not in {UnknownPolicy.RETRY.name, UnknownPolicy.FAIL.name}:
        found.add("on_unknown", f"{shown(texts['on_unknown'])} is neither retry nor fail.", "UNKNOWN_VALUE")
        policy = ""
    return ExecutionDraft(
        request_id=request.headers.get(IDEMPOTENCY_KEY, "").strip(),
        model=texts.get("model", "").strip() or DEFAULT_MODEL,
        api_key=texts.get("api_key"),
        prompts_text=texts.get("prompts_text", ""),
        prompts=prompts,
        prompt_prefix=texts.get("prompt_prefix", ""),
        prompt_suffix=texts.get("prompt_suffix", ""),
        workflow_id=texts.get("workflow_id", "").strip(),
        output=Output(texts.get("aspect_ratio", "").strip(), texts.get("image_size", "").strip()),
        on_unknown=UnknownPolicy[policy or "UNSPECIFIED"],
        **numbers,  # type: ignore[arg-type]  # four fields that take a number or nothing
    )


def _number(found: Violations, name: str, text: str) -> int | None:
    text = text.strip()
    if not text:
        return None
    if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > _LONGEST_NUMBER:
        found.add(name, f"{shown(text)} is no whole number.", "MALFORMED")
        return None
    return int(text)


_LONGEST_NUMBER = 18
"""Digits that fit into 64 bits."""


@asynccontextmanager
async def named_as_here(names: Mapping[str, str] = MappingProxyType({})) -> AsyncIterator[None]:
    """Report what is wrong with a draft under the names of the form; ``names`` are those of this form alone."""
    try:
        yield
    except InvalidRequestError as error:
        known = {**_OWN_NAMES, **names}
        raise InvalidRequestError(
            [replace(each, field=known.get(each.field, each.field)) for each in error.violations]
        ) from None


KEY_HEADER = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "format": "uuid"},
    "description": "A UUID of yours: the same request under the same key is one execution.",
}


def form_schema(
    texts: Mapping[str, str], pictures: Mapping[str, dict[str, Any]], *, required: Sequence[str]
) -> dict[str, Any]:
    """Return OpenAPI's description of a form: text fields with their meanings, and fields of pictures."""
    properties: dict[str, Any] = {
        name: {"type": "integer" if name in _NUMBERS else "string", "description": meaning}
        for name, meaning in texts.items()
    }
    properties["api_key"]["format"] = "password"
    schema = {"type": "object", "required": list(required), "properties": {**properties, **pictures}}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def _schema() -> dict[str, Any]:
    pictures = {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "description": "PNG, JPEG or WebP, at most 10 MiB each, as many as the model takes",
    }
    described = form_schema(FIELDS, {PICTURES: pictures}, required=("prompts_text",))
    described["content"]["multipart/form-data"]["schema"]["properties"]["prompts_text"]["example"] = (
        "a red boat\n\na blue boat"
    )
    return described
