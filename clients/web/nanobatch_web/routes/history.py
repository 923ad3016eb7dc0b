"""All runs, newest first, in pages."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from nanobatch_client import Execution
from nanobatch_web.live import views
from nanobatch_web.routes.answers import answer
from nanobatch_web.viewers import Viewers

_PAGE = 20
_LARGEST_PAGE = 200


def router(viewers: Viewers) -> APIRouter:
    """Return the route."""
    routes = APIRouter()

    @routes.get("/history")
    async def history(
        request: Request, token: str = "", count: Annotated[int, Query(ge=1, le=_LARGEST_PAGE)] = _PAGE
    ) -> Response:
        viewer = await viewers.of(request.headers)
        page = await viewer.client.executions_page(count, token=token)
        return answer({"runs": [_listed(execution) for execution in page.executions], "next": page.next_token})

    return routes


def _listed(execution: Execution) -> dict[str, Any]:
    stats = views.stats(execution.stats)
    return {**views.execution(execution), "stats": stats, "cover": execution.cover_thumbnail_url}
