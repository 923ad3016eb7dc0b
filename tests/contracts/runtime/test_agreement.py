"""Whether two services have the same Redis, on real ones."""

import pytest
from redis_server import private_redis

from nanobatch_runtime.redis import RedisMismatchError, identity, require_same
from nanobatch_runtime.redis.client import open_client


def storage_on(url, looks=None):
    async def told():
        if looks is not None:
            looks.append(url)
        return bool(url), await identity(url) if url else ""

    return told


async def test_the_same_redis_is_let_pass_and_tells_everybody_the_same_word(redis_server):
    looks = []
    await require_same(redis_server.url, storage_on(redis_server.url, looks))
    assert len(looks) == 1
    assert await identity(redis_server.url) == await identity(redis_server.url) != ""


async def test_another_redis_is_refused_and_so_is_another_of_its_databases(redis_server):
    other = redis_server.url.removesuffix("/0") + "/1"
    with private_redis() as second:
        for url in (second.url, other):
            with pytest.raises(RedisMismatchError) as refused:
                await require_same(url, storage_on(redis_server.url))
            assert "NANOBATCH_REDIS_URL" in refused.value.message


async def test_none_beside_a_storage_that_shares_one_is_refused(redis_server):
    with pytest.raises(RedisMismatchError):
        await require_same("", storage_on(redis_server.url))
    await require_same("", storage_on(""))
    await require_same(redis_server.url, storage_on(""))  # of no use, but nothing fails for it


async def test_one_that_is_emptied_between_the_looks_is_the_same(redis_server):
    looks = 0

    async def told():
        nonlocal looks
        looks += 1
        word = await identity(redis_server.url)
        if looks == 1:
            client = open_client(redis_server.url)
            await client.flushall()
            await client.aclose()
        return True, word

    await require_same(redis_server.url, told)
    assert looks == 2


async def test_one_that_is_away_keeps_nobody_from_starting(redis_server):
    redis_server.kill()
    await require_same(redis_server.url, storage_on(redis_server.url))


async def test_a_storage_that_cannot_say_is_believed(redis_server):
    async def silent():
        return None

    await require_same(redis_server.url, silent)
