"""The page's live route, before a gateway over gRPC: many viewers of one run cost it one stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from nanobatch_client import Client, NanobatchError
from nanobatch_client.testing import ScriptedGateway
from nanobatch_runtime.testing import eventually
from nanobatch_web.live.hub import Hub
from nanobatch_web.routes import live
from nanobatch_web.routes.answers import refuse
from nanobatch_web.viewers import Viewers

VIEWERS = 200


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
        app = FastAPI()
        app.add_exception_handler(NanobatchError, refuse)
        app.include_router(live.router(hub, viewers))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as web:

            async def ask(tab: int) -> httpx.Response:
                return await web.get(f"/live/{run.id}?tab={tab}")

            answers = await asyncio.gather(*(ask(tab) for tab in range(VIEWERS)))
            assert {answer.status_code for answer in answers} == {200}
            assert {len(json.loads(answer.content)["results"]) for answer in answers} == {3}
            assert gateway.count("WatchExecution") == 1
            assert gateway.count("GetExecution") <= VIEWERS  # each is asked about once, and not at every question
            looks = gateway.count("GetExecution")
            again = await asyncio.gather(*(ask(tab) for tab in range(VIEWERS)))
            assert gateway.count("GetExecution") == looks
            assert gateway.count("WatchExecution") == 1
            # So many are asked to come half as often.
            assert {answer.headers["x-poll-milliseconds"] for answer in again} == {"500"}
            now = 60.0
            gateway.release()
            await eventually(lambda: hub.open_feeds == 0)
