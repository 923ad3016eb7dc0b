"""The page's archive route, before a gateway over gRPC."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI

from nanobatch_client import NanobatchError
from nanobatch_client.testing import ScriptedGateway, make_status
from nanobatch_runtime.testing import eventually
from nanobatch_web.routes import archive
from nanobatch_web.routes.answers import refuse
from nanobatch_web.viewers import Viewers

MIB = 1024 * 1024
PATH = "/runs/0123abcd-0000-4000-8000-000000000000/archive.zip"


class Browser:
    """Asks as a web server would; ``slow`` reads nothing after the first piece, and ``leave`` closes the connection."""

    def __init__(self, app: FastAPI, *, query: bytes = b"", slow: bool = False) -> None:
        self.messages: list[Any] = []
        self._slow = slow
        self._left = asyncio.Event()
        self._asked = False
        scope = {"type": "http", "method": "GET", "path": PATH, "query_string": query, "headers": [], "asgi": {}}
        self.task = asyncio.create_task(app(scope, self._receive, self._send))  # type: ignore[arg-type]  # ASGI's own

    def leave(self) -> None:
        self._left.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def whole(self) -> bool:
        return self.messages[-1].get("more_body") is False

    async def _receive(self) -> Any:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.messages.append(message)
        if self._slow and message.get("body"):
            await asyncio.Event().wait()


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedGateway]:
    async with ScriptedGateway() as gateway:
        gateway.archive = os.urandom(20 * MIB + 1)
        yield gateway


@pytest.fixture
async def app(gateway: ScriptedGateway) -> AsyncIterator[FastAPI]:
    async with Viewers(gateway.target, token_mode=False).open() as viewers:
        app = FastAPI()
        app.add_exception_handler(NanobatchError, refuse)
        app.include_router(archive.router(viewers))
        yield app


async def test_an_archive_passes_as_it_is(gateway: ScriptedGateway, app: FastAPI) -> None:
    browser = Browser(app, query=b"result_ids=a,b")
    await browser.task
    headers = dict(browser.messages[0]["headers"])
    assert headers[b"content-disposition"] == b'attachment; filename="nanobatch-0123abcd.zip"'
    assert b"content-length" not in headers
    assert browser.body == gateway.archive
    assert browser.whole
    assert list(gateway.calls[-1][1].result_ids) == ["a", "b"]


async def test_what_is_refused_is_answered_in_words(gateway: ScriptedGateway, app: FastAPI) -> None:
    gateway.failures["ExportExecution"].append(make_status("NOT_FOUND", reason="EXECUTION_NOT_FOUND"))
    browser = Browser(app)
    await browser.task
    assert browser.messages[0]["status"] == 404
    assert b"EXECUTION_NOT_FOUND" in browser.body


async def test_a_break_in_the_middle_leaves_the_answer_unfinished(gateway: ScriptedGateway, app: FastAPI) -> None:
    gateway.break_archive_at = 3 * MIB
    browser = Browser(app)
    await browser.task  # raises nothing: no traceback in a log
    assert browser.messages[0]["status"] == 200
    assert len(browser.body) == 3 * MIB
    assert not browser.whole


async def test_a_browser_that_leaves_ends_the_call_to_the_gateway(gateway: ScriptedGateway, app: FastAPI) -> None:
    browser = Browser(app, slow=True)
    await eventually(lambda: len(browser.messages) > 1)
    assert gateway.open_archives == 1
    browser.leave()
    await browser.task
    await eventually(lambda: gateway.open_archives == 0)
