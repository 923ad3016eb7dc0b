"""The page's live route, before a gateway over gRPC: many viewers of one run cost it one stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from nanobatch_client import Client
from nanobatch_client.testing import ScriptedGateway
from nanobatch_runtime.testing import eventually
from nanobatch_web.live.hub import Hub
from nanobatch_web.routes.live import Live
from nanobatch_web.viewers import Viewers

VIEWERS = 200
LIVE = "/nano-banana/nb/live"


def asking(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page")


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedGateway]:
    async with ScriptedGateway() as gateway:
        yield gateway


async def test_two_hundred_viewers_of_one_run_are_one_watch_that_ends_with_the_last(gateway: ScriptedGateway) -> None:
    now = 0.0
    async with (
        Client(gateway.target) as client,
        Viewers(gateway.target, token_mode=False).open() as viewers,
        Hub(lambda: now).open() as hub,
    ):
        run = await client.create_execution(["one", "two", "[hold] three"], model="sandbox")
        async with asking(Live(PlainTextResponse("all else"), hub, viewers)) as web:

            async def ask(tab: int) -> httpx.Response:
                return await web.get(f"{LIVE}/{run.id}?tab={tab}")

            assert (await ask(0)).headers["x-poll-milliseconds"] == "250"

            answers = await asyncio.gather(*(ask(tab) for tab in range(VIEWERS)))
            assert {answer.status_code for answer in answers} == {200}
            assert {len(json.loads(answer.content)["results"]) for answer in answers} == {3}
            assert gateway.count("WatchExecution") == 1
            assert gateway.count("GetExecution") <= VIEWERS  # each is asked about once, and not at every question
            looks = gateway.count("GetExecution")
            again = await asyncio.gather(*(ask(tab) for tab in range(VIEWERS)))
            assert gateway.count("GetExecution") == looks
            assert gateway.count("WatchExecution") == 1
            # So many are asked to come less often: 500 questions a second are answered, from however many.
            assert {answer.headers["x-poll-milliseconds"] for answer in again} == {"400"}
            now = 60.0
            gateway.release()
            await eventually(lambda: hub.open_feeds == 0)


async def test_a_browser_gets_what_is_newer_than_what_it_says_it_has(gateway: ScriptedGateway) -> None:
    async with (
        Client(gateway.target) as client,
        Viewers(gateway.target, token_mode=False).open() as viewers,
        Hub().open() as hub,
        asking(Live(PlainTextResponse("all else"), hub, viewers)) as web,
    ):
        run = await client.create_execution(["one", "[hold] two"], model="sandbox")
        first = (await web.get(f"{LIVE}/{run.id}")).json()
        assert len(first["results"]) == 2
        has = {"since": first["version"], "epoch": first["epoch"]}
        assert (await web.get(f"{LIVE}/{run.id}", params=has)).json()["results"] == []
        for strange in ({"since": "x"}, {"since": first["version"], "epoch": "another"}, {"since": "9" * 5000}):
            assert len((await web.get(f"{LIVE}/{run.id}", params=strange)).json()["results"]) == 2
        unknown = await web.get(f"{LIVE}/00000000-0000-4000-8000-00000000dead")
        assert (unknown.status_code, unknown.json()["success"]) == (404, False)
        assert (await web.get("/nano-banana/nb/texts")).text == "all else"
        assert (await web.post(f"{LIVE}/{run.id}")).text == "all else"
