"""Scripts and styles of the page. They come from this package and from nowhere else."""

from __future__ import annotations

import hashlib
from importlib import resources

from fastapi import APIRouter, HTTPException, Request, Response

_KINDS = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}


def assets() -> APIRouter:
    """Return the route; files are read once."""
    folder = resources.files("nanobatch_web") / "assets"
    files = {
        item.name: (item.read_bytes(), _KINDS[item.name.rpartition(".")[2]])
        for item in folder.iterdir()
        if item.name.rpartition(".")[2] in _KINDS
    }
    tags = {name: f'"{hashlib.sha256(body).hexdigest()[:24]}"' for name, (body, _) in files.items()}
    routes = APIRouter()

    @routes.get("/assets/{name}")
    async def asset(request: Request, name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        body, kind = files[name]
        headers = {"ETag": tags[name], "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tags[name]:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=kind, headers=headers)

    return routes
