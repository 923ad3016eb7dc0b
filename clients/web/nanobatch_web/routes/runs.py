"""What a person does with a run: pause, resume, cancel, retry, delete."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from nanobatch_web.again import again_like
from nanobatch_web.live import views
from nanobatch_web.routes.answers import answer
from nanobatch_web.viewers import Viewers

_MAX_RESULTS = 400
_MAX_TEXT = 50_000
_MAX_AGAIN = 100


class Resume(BaseModel):
    """A body of ``resume``; a key is needed only where none is kept."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    api_key: Annotated[str, Field(max_length=1000)] = ""
    cap_micros: Annotated[int | None, Field(ge=0)] = None


class Retry(BaseModel):
    """A body of ``retry``; no ids: all failed ones. ``edits`` are new texts by result id.

    ``request_id`` (a UUID) makes a repeat safe.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    result_ids: Annotated[list[str], Field(max_length=_MAX_RESULTS)] = []
    edits: dict[str, Annotated[str, Field(max_length=_MAX_TEXT)]] = {}
    api_key: Annotated[str, Field(max_length=1000)] = ""
    request_id: Annotated[str, Field(max_length=36)] = ""


class Again(BaseModel):
    """A body of ``again``: which pictures are wanted once more; ``request_id`` (a UUID) makes a repeat safe."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    result_ids: Annotated[list[str], Field(min_length=1, max_length=_MAX_AGAIN)]
    api_key: Annotated[str, Field(max_length=1000)] = ""
    request_id: Annotated[str, Field(max_length=36)] = ""


def router(viewers: Viewers) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/runs/{execution_id}")

    @routes.post("/pause")
    async def pause(request: Request, execution_id: str) -> Response:
        viewer = await viewers.of(request.headers)
        return answer(views.execution(await viewer.client.pause_execution(execution_id)))

    @routes.post("/resume")
    async def resume(request: Request, execution_id: str, body: Resume) -> Response:
        viewer = await viewers.of(request.headers)
        execution = await viewer.client.resume_execution(
            execution_id, api_key=body.api_key or None, max_cost_micros=body.cap_micros
        )
        return answer(views.execution(execution))

    @routes.post("/cancel")
    async def cancel(request: Request, execution_id: str) -> Response:
        viewer = await viewers.of(request.headers)
        cancelled = await viewer.client.cancel_execution(execution_id)
        data: dict[str, Any] = views.execution(cancelled.execution)
        return answer({**data, "in_flight": cancelled.in_flight, "maybe_charged": cancelled.maybe_charged_micros})

    @routes.post("/retry")
    async def retry(request: Request, execution_id: str, body: Retry) -> Response:
        viewer = await viewers.of(request.headers)
        retried = await viewer.client.retry_execution(
            execution_id,
            result_ids=body.result_ids,
            edits=body.edits,
            api_key=body.api_key or None,
            request_id=body.request_id or None,
        )
        return answer({**views.execution(retried.execution), "retried": retried.retried})

    @routes.post("/again")
    async def again(request: Request, execution_id: str, body: Again) -> Response:
        viewer = await viewers.of(request.headers)
        child = await again_like(
            viewer.client,
            execution_id,
            body.result_ids,
            api_key=body.api_key or None,
            request_id=body.request_id or None,
        )
        return answer(views.execution(child))

    @routes.post("/delete")
    async def delete(request: Request, execution_id: str) -> Response:
        viewer = await viewers.of(request.headers)
        await viewer.client.delete_execution(execution_id)
        return answer({})

    return routes
