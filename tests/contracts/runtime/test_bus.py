"""The port Bus: one suite for the bus of one process and for the bus over Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import pytest
from redis_server import RedisServer

from nanobatch_runtime.bus import Bus, MemoryBus
from nanobatch_runtime.bus.redis import open_redis_bus
from nanobatch_runtime.testing import eventually

SECOND, MOMENT = timedelta(seconds=1), timedelta(milliseconds=50)


@asynccontextmanager
async def open_ready(url: str) -> AsyncIterator[Bus]:
    """Open a bus over Redis that is connected."""
    async with open_redis_bus(url) as bus:
        await eventually(lambda: bus._pubsub.up)
        yield bus


@pytest.fixture(params=["memory", "redis one process", "redis two processes"])
async def buses(request) -> AsyncIterator[tuple[Bus, Bus]]:
    """A bus to publish on and one to listen to: the same one, or those of two processes."""
    if request.param == "memory":
        bus = MemoryBus()
        yield bus, bus
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(open_ready(server.url))
        other = await stack.enter_async_context(open_ready(server.url)) if "two" in request.param else one
        yield one, other


async def test_a_hint_wakes_every_listener_of_its_topic_and_no_other(buses):
    speaker, hearer = buses
    async with hearer.subscribe("a") as one, hearer.subscribe("a") as two, hearer.subscribe("b") as other:
        await quiet(one, two, other)
        await speaker.publish("a")
        assert await one.wait(SECOND)
        assert await two.wait(SECOND)
        assert not await other.wait(MOMENT)


async def test_hints_that_come_while_nobody_waits_are_kept_as_one(buses):
    speaker, hearer = buses
    async with hearer.subscribe("a") as listener, hearer.subscribe("end") as end:
        await quiet(listener, end)
        await speaker.publish("a")
        await speaker.publish("a")
        await speaker.publish("end")
        assert await end.wait(SECOND)  # all that came before it has come by now
        assert await listener.wait(SECOND)
        assert not await listener.wait(MOMENT)


async def test_who_subscribes_hears_all_that_follows_without_a_moment_in_between(buses):
    speaker, hearer = buses
    for number in range(50):
        async with hearer.subscribe(f"execution:{number}") as listener:
            await speaker.publish(f"execution:{number}")
            assert await listener.wait(SECOND), number


async def test_who_has_left_is_not_kept_in_mind(buses):
    speaker, hearer = buses
    for number in range(100):
        async with hearer.subscribe(str(number)):
            await speaker.publish(str(number))
    local = getattr(hearer, "_local", hearer)
    assert not local._listeners


async def test_many_hints_of_many_topics_all_arrive(buses):
    speaker, hearer = buses
    async with AsyncExitStack() as stack:
        ears = [await stack.enter_async_context(hearer.subscribe(f"t{n}")) for n in range(1000)]
        for number in range(1000):
            await speaker.publish(f"t{number}")
        assert all(await asyncio.gather(*(ear.wait(5 * SECOND) for ear in ears)))


async def quiet(*listeners) -> None:
    """Let hints of the connection itself pass by."""
    for listener in listeners:
        await listener.wait(MOMENT)


class Outage:
    """A way for Redis to be away, and back."""

    def __init__(self, begin: Callable[[RedisServer], object], end: Callable[[RedisServer], object]) -> None:
        self.begin, self.end = begin, end


OUTAGES = {
    "hangs": Outage(RedisServer.freeze, RedisServer.thaw),
    "pauses its clients": Outage(lambda redis: redis.run("CLIENT", "PAUSE", "3500"), lambda _: None),
    "is killed and comes back empty": Outage(RedisServer.kill, RedisServer.start),
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
async def test_while_redis_is_away_nobody_waits_for_it_and_once_it_is_back_all_look_again(redis_server, outage, capfd):
    async with (
        open_ready(redis_server.url) as one,
        open_ready(redis_server.url) as other,
        one.subscribe("a") as here,
        other.subscribe("a") as there,
    ):
        await quiet(here, there)
        outage.begin(redis_server)
        async with asyncio.timeout(0.5):  # before anybody has noticed
            for number in range(100):
                await one.publish(f"t{number}")
            await one.publish("a")
        assert await here.wait(SECOND)  # one's own listeners need no Redis
        await eventually(lambda: not one._pubsub.up and not other._pubsub.up, within=3)
        async with asyncio.timeout(0.1):
            await one.publish("a")
        await eventually(lambda: not one._pending)  # nothing piles up
        await quiet(here, there)
        outage.end(redis_server)
        assert await here.wait(5 * SECOND)
        assert await there.wait(5 * SECOND)
        await eventually(lambda: one._pubsub.up and other._pubsub.up)
        await quiet(here, there)
        await one.publish("a")
        assert await there.wait(SECOND)
    said = capfd.readouterr()
    assert (said.out + said.err).count("redis.away") == 2  # once for each of them, however often it was tried
    assert (said.out + said.err).count("redis.back") == 2


async def test_an_emptied_redis_is_not_even_noticed(redis_server):
    async with (
        open_ready(redis_server.url) as one,
        open_ready(redis_server.url) as other,
        other.subscribe("a") as there,
    ):
        await quiet(there)
        redis_server.run("FLUSHALL")
        await one.publish("a")
        assert await there.wait(SECOND)


async def test_a_bus_opens_before_its_redis_and_hears_it_later(redis_server):
    redis_server.kill()
    async with open_redis_bus(redis_server.url) as bus, bus.subscribe("a") as listener:
        await bus.publish("a")
        assert await listener.wait(SECOND)
        redis_server.start()
        await eventually(lambda: bus._pubsub.up)
        assert await listener.wait(SECOND)  # something may have been missed


async def test_two_systems_on_two_databases_of_one_redis_do_not_hear_each_other(redis_server):
    async with (
        open_ready(redis_server.url) as one,
        open_ready(redis_server.url.replace("/0", "/1")) as stranger,
        stranger.subscribe("a") as there,
        one.subscribe("a") as here,
    ):
        await quiet(there, here)
        await one.publish("a")
        assert await here.wait(SECOND)
        assert not await there.wait(timedelta(milliseconds=300))


async def test_a_connection_that_redis_cuts_is_replaced_and_listeners_look_again(redis_server):
    async with open_ready(redis_server.url) as bus, bus.subscribe("a") as listener:
        await quiet(listener)
        redis_server.run("CLIENT", "KILL", "TYPE", "pubsub")
        assert await listener.wait(3 * SECOND)


async def test_a_wrong_password_is_said_without_any_password(redis_server, capfd):
    redis_server.run("CONFIG", "SET", "requirepass", "right")
    url = redis_server.url.replace("redis://", "redis://default:wr0ng-secret@")
    async with open_redis_bus(url):
        said = []
        await eventually(lambda: said.append(capfd.readouterr()) or "redis.away" in str(said))
    assert "AuthenticationError" in str(said)
    assert "wr0ng" not in str(said)
