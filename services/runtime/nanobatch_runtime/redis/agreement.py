"""Whether two services have the same Redis: a random word that lies in it says so (docs/adr/0013)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import structlog

from nanobatch_runtime.errors import FailedPreconditionError

_log = structlog.get_logger("nanobatch.redis")

_LOOKS = 3
_PAUSE_SECONDS = 0.5


class RedisMismatchError(FailedPreconditionError):
    """This service and storage do not share a Redis."""

    reason = "REDIS_MISMATCH"


async def identity(url: str) -> str:
    """Return the word that lies in the Redis at ``url``, putting one there first; empty where it does not answer."""
    from nanobatch_runtime.redis.client import PREFIX, REDIS_ERRORS, open_client  # noqa: PLC0415  # only where there is one

    client, key = open_client(url), f"{PREFIX}identity"
    try:
        await client.set(key, secrets.token_hex(16), nx=True)
        found = await client.get(key)
    except REDIS_ERRORS:
        return ""
    else:
        return found.decode() if isinstance(found, bytes) else ""
    finally:
        await client.aclose()


async def require_same(url: str, ask: Callable[[], Awaitable[tuple[bool, str] | None]]) -> None:
    """Compare the Redis at ``url`` (empty: none) with storage's.

    ``ask`` returns whether storage has one, and its word; None where it cannot say. Raises RedisMismatchError, and what
    ``ask`` raises. A Redis that is away cannot be compared: then nothing is refused, because whatever happens to Redis must
    keep nobody from starting. One that is emptied between two looks has another word afterwards; so a difference counts
    only when it lasts.
    """
    for look in range(_LOOKS):
        if look:
            await asyncio.sleep(_PAUSE_SECONDS)
        told = await ask()
        if told is None:
            return
        has_one, theirs = told
        if has_one and not url:
            raise RedisMismatchError(
                "Storage shares a Redis with others, and this service has none: set NANOBATCH_REDIS_URL to the same Redis."
            )
        if not has_one:
            if url:
                _log.warning("redis.not_shared", message="This service has a Redis, and storage has none.")
            return
        ours = await identity(url)
        if not (ours and theirs):
            _log.warning(
                "redis.not_compared", message="Redis does not answer; whether storage has the same is unknown."
            )
            return
        if ours == theirs:
            return
    raise RedisMismatchError(
        "This service and storage have different Redis: set NANOBATCH_REDIS_URL (or REDIS_HOST, REDIS_PORT, REDIS_DB) to the "
        "same one, with the same number of the database, for all services."
    )
