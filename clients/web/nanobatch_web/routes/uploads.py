"""Reference pictures on their way to the gateway: the body is the picture, the answer its id."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from nanobatch_client import InvalidRequestError
from nanobatch_web.routes.answers import answer
from nanobatch_web.viewers import Viewers

MAX_BYTES = 10 * 1024 * 1024


def router(viewers: Viewers) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    @routes.post("/uploads")
    async def upload(request: Request) -> Response:
        viewer = await viewers.of(request.headers)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                raise InvalidRequestError("The picture is larger than 10 MB.", reason="TOO_LARGE")
        image = await viewer.client.upload_image(bytes(body))
        return answer({"id": image.id, "width": image.width, "height": image.height, "mime": image.mime_type})

    @routes.get("/uploads/{image_id}")
    async def find(request: Request, image_id: str) -> Response:
        image = await (await viewers.of(request.headers)).client.get_image(image_id)
        return answer({"id": image.id, "url": image.url})

    return routes
