"""Who is looking; also how the page finds out that the gateway answers again."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from nanobatch_web.routes.answers import answer
from nanobatch_web.viewers import Viewers


def router(viewers: Viewers) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    @routes.get("/me")
    async def me(request: Request) -> Response:
        account = await (await viewers.of(request.headers)).client.who_am_i()
        return answer({"name": account.user.name, "role": account.user.role.value, "signed_in": viewers.token_mode})

    return routes
