"""The page's connections to the gateway, one for each who looks."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from nanobatch_client.testing import ScriptedGateway
from nanobatch_web.viewers import MAX_CLIENTS, Trusted, Viewers


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedGateway]:
    async with ScriptedGateway() as gateway:
        yield gateway


async def test_a_crowd_takes_nobodys_connection_away_while_it_is_used(gateway: ScriptedGateway) -> None:
    async with Viewers(gateway.target, token_mode=True).open() as viewers:
        early = await viewers.with_token("early")
        run = await early.client.create_execution(["one", "[hold] two"], model="sandbox")
        async with aclosing(early.client.watch(run.id)) as updates:
            await anext(updates)
            for number in range(MAX_CLIENTS):
                await viewers.with_token(f"token {number}")
            assert (await viewers.with_token("early")).client is not early.client
            assert (await early.client.get_execution(run.id)).id == run.id
            gateway.release()
            seen = [update async for update in updates]
        assert seen
        assert gateway.count("WatchExecution") == 1


async def test_a_connection_that_nobody_uses_any_more_goes_with_the_crowd(gateway: ScriptedGateway) -> None:
    async with Viewers(gateway.target, token_mode=True).open() as viewers:
        early = weakref.ref((await viewers.with_token("early")).client)
        for number in range(MAX_CLIENTS - 1):
            await viewers.with_token(f"token {number}")
        gc.collect()
        assert early() is not None
        await viewers.with_token("one more")
        gc.collect()
        assert early() is None


def test_tokens_that_were_good_long_ago_are_forgotten() -> None:
    now = 0.0
    trusted = Trusted(lambda: now)
    for number in range(50):
        now = number * 100.0
        trusted.note(str(number))
    assert len(trusted) == 36
    assert trusted.within(5, "49")
    assert not trusted.within(5, "48")
    assert trusted.within(3600, "14")
    trusted.forget("49")
    assert not trusted.within(3600, "49")
