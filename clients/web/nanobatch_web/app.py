"""The composition root: the page, its routes, the door before both."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from starlette.routing import Mount
from starlette.types import ASGIApp

from nanobatch_client import NanobatchError
from nanobatch_runtime.own_names import OwnNames
from nanobatch_web import quick_gradio, texts
from nanobatch_web.door import Door
from nanobatch_web.gate import Gate
from nanobatch_web.live.hub import Hub
from nanobatch_web.pages import site
from nanobatch_web.pages.context import Context
from nanobatch_web.routes import account, archive, history, login, runs, uploads, usage
from nanobatch_web.routes.answers import answer, refuse
from nanobatch_web.routes.assets import assets
from nanobatch_web.routes.live import Live
from nanobatch_web.routes.plain import lost
from nanobatch_web.settings import MOUNT, OWN, WebSettings
from nanobatch_web.viewers import Viewers

_EVENTS = 400
"""Events at once in one process; Gradio's own limit of 40 would let a few slow providers stop the page."""
_STYLES = ("page.css", "gallery.css", "statistics.css")


def make_app(settings: WebSettings, port: int) -> ASGIApp:
    """Return the page for a port that it will listen on."""
    hub = Hub()
    viewers = Viewers(settings.gateway_target, token_mode=settings.auth == "token")
    translate = gr.I18n(**{language: texts.table(language) for language in texts.LANGUAGES})
    with quick_gradio.one_server():
        blocks = site.build(Context(viewers, translate))
        blocks.max_threads = _EVENTS
        blocks.queue(default_concurrency_limit=None)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with viewers.open(), hub.open():
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(NanobatchError, refuse)
    app.add_exception_handler(404, lost)
    own = (
        runs.router(viewers),
        archive.router(viewers),
        history.router(viewers),
        uploads.router(viewers),
        usage.router(viewers),
        account.router(viewers),
        assets(),
    )
    for routes in own:
        app.include_router(routes, prefix=OWN)
    app.include_router(login.router(viewers, secure=settings.page_url.startswith("https:")))
    app.include_router(_home())
    with warnings.catch_warnings():
        # Gradio warns that what is off here could not be on.
        warnings.filterwarnings("ignore", message="SSR mode is not supported", category=UserWarning)
        gr.mount_gradio_app(
            app,
            blocks,
            path=MOUNT,
            i18n=translate,
            css_paths=[str(Path(str(resources.files("nanobatch_web") / "assets" / name))) for name in _STYLES],
            head=f'<script type="module" src="{OWN}/assets/page.js"></script>',
            run_history=False,
            show_error=False,
            footer_links=[],
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            allowed_paths=[],
            max_file_size="4mb",
        )
    for mounted in app.routes:  # Gradio's part is an application of its own, with its own answers
        if isinstance(mounted, Mount) and isinstance(mounted.app, FastAPI):
            mounted.app.add_exception_handler(404, lost)
    host = settings.listen.rpartition(":")[0]
    inner = Live(app, hub, viewers)
    guarded = Gate(inner, viewers) if viewers.token_mode else inner
    return Door(guarded, names=OwnNames.of(f"{host}:{port}", settings.page_url), pictures=_pictures(settings))


def _home() -> APIRouter:
    routes = APIRouter()

    @routes.get("/")
    async def home() -> Response:
        return RedirectResponse(MOUNT + "/")

    @routes.get(f"{OWN}/texts")
    async def words(request: Request) -> Response:
        language = texts.language_of(request.headers)
        return answer({"language": language, "texts": texts.table(language)})

    return routes


def _pictures(settings: WebSettings) -> str:
    """Where pictures may come from, as a source of the content security policy."""
    if settings.public_url:
        parts = urlsplit(settings.public_url)
        return f"{parts.scheme}://{parts.netloc}"
    return "http://127.0.0.1:* http://localhost:*"
