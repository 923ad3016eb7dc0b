"""The REST calls for one picture: send it with a prompt, ask how it stands. A task is an execution of one picture."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nanobatch.gateway.v1 import execution_pb2
from nanobatch_gateway.domain import Caller, ImageNotFoundError, InvalidRequestError, PromptDraft
from nanobatch_gateway.fields import MAX_PAGE_SIZE, Violations
from nanobatch_gateway.http.access import caller_of
from nanobatch_gateway.http.errors import BodyTooLargeError, MediaTypeError
from nanobatch_gateway.http.forms import open_form
from nanobatch_gateway.http.rest import (
    FIELDS,
    KEY_HEADER,
    BatchUseCases,
    as_json,
    draft_of,
    form_schema,
    named_as_here,
)
from nanobatch_gateway.http.shapes import QueuedTask, Success, TaskView, queued_task, task_view
from nanobatch_gateway.submit import SOURCE
from nanobatch_runtime.errors import FieldViolation

_OWN_FIELDS = {"prompt": "what is to become of the picture"}
_OF_THE_BATCH = ("prompts_text", "prompt_prefix", "prompt_suffix", "variations")
SINGLE_FIELDS = _OWN_FIELDS | {name: meaning for name, meaning in FIELDS.items() if name not in _OF_THE_BATCH}
"""Text fields of the form, each with what it means and its default."""
_JSON = "application/json"
_MAX_BODY_BYTES = 8 * 1024
_NAMES = {"prompts[0].text": "prompt", "prompts": "prompt"}


class TaskQuery(BaseModel):
    """Which task: what its creation answered."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    image_id: str = Field(alias="imageId", description="the picture that was sent")
    task_id: str = Field(alias="taskId", description="the task")


def single_routes(use: BatchUseCases) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.post(
        "/api/generate-image",
        response_model=Success[QueuedTask],
        openapi_extra={"requestBody": _schema(), "parameters": [KEY_HEADER]},
        summary="Change one picture",
    )
    async def generate_image(request: Request) -> Response:
        """Take one picture and a prompt, and answer as soon as the task is queued."""
        found = Violations()
        async with open_form(request, SINGLE_FIELDS, found, pictures=SOURCE) as form:
            draft = draft_of(form, request, found, prompts=(PromptDraft(form.texts.get("prompt", "").strip()),))
            if len(form.pictures) != 1:
                found.add(SOURCE, f"There are {len(form.pictures)} pictures; send one.", "REQUIRED")
            source = form.incoming()[0] if len(form.pictures) == 1 else None
            caller = caller_of(request)
            async with named_as_here(_NAMES):
                execution = await use.submit(caller, draft, [], source=source, found=found.found)
        # A repeat under the same key finds the picture that was stored then.
        (result,) = (await _results(use, caller, execution.id))[:1]
        return as_json(Success[QueuedTask](data=queued_task(execution, result.source_image_id)))

    @router.post(
        "/api/check-generation-status",
        response_model=Success[TaskView],
        openapi_extra={
            "requestBody": {"required": True, "content": {_JSON: {"schema": TaskQuery.model_json_schema()}}}
        },
        summary="Ask how one picture stands",
    )
    async def check_status(request: Request) -> Response:
        """Answer at once with what is known; nothing is asked of the provider, and asking often costs nothing."""
        query = await _query(request)
        found = Violations()
        found.id("imageId", query.image_id, required=True)
        found.id("taskId", query.task_id, required=True)
        found.raise_any()
        caller = caller_of(request)
        stored = await use.executions.get(caller, query.task_id)
        for result in await _results(use, caller, query.task_id):
            if result.source_image_id == query.image_id:
                return as_json(Success[TaskView](data=task_view(stored.execution, use.linker.result(caller, result))))
        raise ImageNotFoundError(f"Task {query.task_id} is not about a picture {query.image_id}.")

    return router


async def _query(request: Request) -> TaskQuery:
    """Read the body, after the caller was let in: whoever was not is not told what would be wrong with it."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
        raise MediaTypeError(f"Send imageId and taskId as {_JSON}.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise BodyTooLargeError(f"The body is larger than {_MAX_BODY_BYTES // 1024} KiB.")
    try:
        return TaskQuery.model_validate_json(bytes(body))
    except ValidationError as error:  # what was sent is not repeated
        problems = [
            FieldViolation(str(each["loc"][0]) if each["loc"] else "body", each["msg"], "MALFORMED")
            for each in error.errors()
        ]
        raise InvalidRequestError(problems) from None


async def _results(use: BatchUseCases, caller: Caller, execution_id: str) -> list[execution_pb2.Result]:
    page = await use.list_results(caller, execution_id, states=(), size=MAX_PAGE_SIZE, token="")
    return list(page.items)


def _schema() -> dict[str, Any]:
    picture = {"type": "string", "format": "binary", "description": "PNG, JPEG or WebP, at most 10 MiB"}
    return form_schema(SINGLE_FIELDS, {SOURCE: picture}, required=("prompt", SOURCE))
