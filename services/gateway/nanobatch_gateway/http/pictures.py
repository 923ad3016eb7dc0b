"""Pictures at signed addresses: for ``<img>``, for caches, for saving. Whoever has the address may look."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nanobatch_gateway.domain import Caller, ImageNotFoundError, ReaderTooSlowError, StorageUnavailableError
from nanobatch_gateway.file_names import extension
from nanobatch_gateway.http.errors import RangeNotSatisfiableError
from nanobatch_gateway.ports import Images, PictureLink, PictureLinks

_ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_INERT = "default-src 'none'; sandbox"
_SERVED_TYPES = frozenset({"image/png", "image/jpeg", "image/webp"})


def picture_routes(links: PictureLinks, images: Images, *, stall: timedelta) -> APIRouter:
    """Return the route; ``stall`` is how long a client may leave one piece lying."""
    router = APIRouter()

    @router.head("/images/{image_id}", response_class=Response, summary="Get a picture's headers")
    @router.get(
        "/images/{image_id}",
        response_class=Response,
        responses={200: {"content": {kind: {} for kind in sorted(_SERVED_TYPES)}}, 206: {}, 304: {}},
        summary="Get a picture",
    )
    async def get_picture(request: Request, image_id: str) -> Response:
        """Serve the picture of a signed address; with `download` in the query as a file to be saved."""
        link = links.open(image_id, request.query_params)
        found = await images.find(link.caller, [image_id])
        if image_id not in found:
            raise ImageNotFoundError("There is no such picture.")
        image = found[image_id]
        headers = _headers(image, link, download="download" in request.query_params)
        if _matches(request.headers.get("if-none-match", ""), headers["etag"]):
            return Response(status_code=304, headers=headers)
        first, last = 0, image.size_bytes - 1
        part = _part(request, image.size_bytes, headers["etag"])
        if part is not None:
            first, last = part
            headers["content-range"] = f"bytes {first}-{last}/{image.size_bytes}"
        headers |= {"content-type": _type(image), "content-length": str(last - first + 1)}
        status = 206 if part else 200
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        return _Stream(images, link.caller, image_id, part=(first, last), status=status, headers=headers, stall=stall)

    return router


def _headers(image: Any, link: PictureLink, *, download: bool) -> dict[str, str]:
    # The name holds a-z, 0-9 and "-" alone: signed so, so that nobody can smuggle another into a header.
    name = f"{link.name}.{extension(image.mime_type)}"
    return {
        "etag": f'"{image.sha256}"',
        "accept-ranges": "bytes",
        "cache-control": f"private, max-age={link.seconds_left}, immutable",
        "content-disposition": f'{"attachment" if download else "inline"}; filename="{name}"',
        "content-security-policy": _INERT,
        # The address is the permission; a page that has it may show the picture.
        "cross-origin-resource-policy": "cross-origin",
        "referrer-policy": "no-referrer",
    }


def _type(image: Any) -> str:
    return image.mime_type if image.mime_type in _SERVED_TYPES else "application/octet-stream"


def _matches(header: str, etag: str) -> bool:
    given = {part.strip().removeprefix("W/") for part in header.split(",")}
    return etag in given or "*" in given


def _part(request: Request, size: int, etag: str) -> tuple[int, int] | None:
    """Return the first and last byte asked for, or None for all of them. Several ranges are answered with all, too."""
    header = request.headers.get("range", "")
    condition = request.headers.get("if-range")
    match = _ONE_RANGE.fullmatch(header.replace(" ", ""))
    if match is None or not any(match.groups()) or (condition is not None and condition != etag):
        return None
    start, end = match.groups()
    if not start:
        first, last = max(0, size - int(end)), size - 1
    else:
        first, last = int(start), min(int(end), size - 1) if end else size - 1
    if (start and end and int(end) < int(start)) or (not start and int(end) == 0) or first >= size:
        raise RangeNotSatisfiableError(size)
    return first, last


class _Stream(Response):
    """Sends a picture in the pieces in which storage gives it: one is in memory, whatever the picture's size."""

    def __init__(
        self,
        images: Images,
        caller: Caller,
        image_id: str,
        *,
        part: tuple[int, int],
        status: int,
        headers: dict[str, str],
        stall: timedelta,
    ) -> None:
        super().__init__(status_code=status)
        self.raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._images = images
        self._caller = caller
        self._image_id = image_id
        self._part = part
        self._stall = stall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        first, last = self._part
        # What goes wrong before the first byte still gets an answer of its own.
        async with self._images.read_part(self._caller, self._image_id, first, last) as pieces:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            left = last + 1 - first
            async for chunk in pieces:
                await self._piece(send, chunk)
                left -= len(chunk)
            if left:  # the connection is cut: the client must not take it for the whole
                raise StorageUnavailableError("The picture broke off.")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _piece(self, send: Send, chunk: bytes) -> None:
        try:
            async with asyncio.timeout(self._stall.total_seconds()):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except TimeoutError:
            raise ReaderTooSlowError(f"Nothing was read for {self._stall.total_seconds():g} s.") from None
        except OSError:
            raise ClientDisconnect from None
