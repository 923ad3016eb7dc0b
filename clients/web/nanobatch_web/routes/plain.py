"""Pages without Gradio: what is shown to a person before, or in place of, the page itself."""

from __future__ import annotations

from html import escape
from importlib import resources
from string import Template

from fastapi import Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import HTMLResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from nanobatch_web import texts
from nanobatch_web.settings import MOUNT

_SHELL = Template((resources.files("nanobatch_web") / "assets" / "plain.html").read_text(encoding="utf-8"))


def plain(language: str, title: str, content: str, status: int) -> Response:
    """Return a page; ``content`` is HTML, its words escaped already."""
    page = _SHELL.substitute(language=language, title=title, content=content)
    return HTMLResponse(page, status, headers={"Cache-Control": "no-store"})


def navigates(method: str, headers: Headers) -> bool:
    """Whether a person's browser goes to this address, rather than a script of the page asking it."""
    return method == "GET" and (
        headers.get("sec-fetch-mode") == "navigate"
        or ("sec-fetch-mode" not in headers and "text/html" in headers.get("accept", ""))
    )


async def lost(request: Request, error: Exception) -> Response:
    """Lead a person who went to an address that is none back to the page; everybody else is answered as before."""
    if not isinstance(error, HTTPException):
        raise error
    if not navigates(request.method, request.headers):
        return await http_exception_handler(request, error)
    language = texts.language_of(request.headers)
    said = {key: escape(texts.say(language, f"lost.{key}")) for key in ("title", "info", "link")}
    content = f'<p class="info">{said["info"]}</p><p><a href="{MOUNT}/">{said["link"]}</a></p>'
    return plain(language, said["title"], content, 404)
