"""Checks of one dependency each, for ``nanobatch doctor``: what was asked, what came back, and what to do."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nanobatch_runtime.errors import NanobatchError
from nanobatch_runtime.redis.client import PREFIX, open_client
from nanobatch_runtime.settings import SettingsError

LIMIT = timedelta(seconds=15)


class Verdict(StrEnum):
    """What a check came to."""

    OK = "ok"
    WARNING = "warning"
    """It works, and is not as it should be."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """It does not apply here; the detail says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. Nothing in it holds a password or a key."""

    check: str
    verdict: Verdict
    address: str = ""
    detail: str = ""
    advice: str = ""
    """What to do; empty unless it failed or warns."""
    milliseconds: int = 0


class ComplaintError(Exception):
    """What a check found wrong, where that needs other advice than usual."""

    def __init__(self, detail: str, advice: str) -> None:
        """Take both as sentences."""
        super().__init__(detail)
        self.advice = advice


class ConcernError(ComplaintError):
    """What works and is not as it should be: a warning."""


class DoesNotApplyError(Exception):
    """A check found out that it does not apply here; the message says why."""


async def examine(check: str, address: str, work: Callable[[], Awaitable[str]], *, advice: str) -> Finding:
    """Run one check under a time limit. ``work`` returns a detail, or raises; ``advice`` is for whatever it raises."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(LIMIT.total_seconds()):
            detail = await work()
        verdict, advice = Verdict.OK, ""
    except DoesNotApplyError as reason:
        return skipped(check, str(reason))
    except ComplaintError as complaint:
        verdict = Verdict.WARNING if isinstance(complaint, ConcernError) else Verdict.FAILED
        detail, advice = str(complaint), complaint.advice
    except TimeoutError:
        verdict, detail = Verdict.FAILED, f"No answer within {LIMIT.total_seconds():g} s."
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the finding
        verdict, detail = Verdict.FAILED, _sentence(error)
    took = round((time.monotonic() - started) * 1000)
    return Finding(check, verdict, without_password(address), detail, advice, took)


def skipped(check: str, why: str) -> Finding:
    """Return the finding of a check that does not apply."""
    return Finding(check, Verdict.SKIPPED, detail=why)


def without_password(address: str) -> str:
    """Return a URL without what stands before its host; anything else as it is."""
    parts = urlsplit(address) if "://" in address else None
    if parts is None or "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


async def examine_redis(url: str) -> Finding:
    """Write something to Redis, read it back, and remove it."""

    async def work() -> str:
        name, value = f"{PREFIX}doctor:{secrets.token_hex(8)}", secrets.token_hex(8)
        client = open_client(url)
        try:
            await client.set(name, value, px=60_000)
            back = await client.get(name)
            await client.delete(name)
        finally:
            await client.aclose()
        if back not in {value, value.encode()}:
            raise ComplaintError("What was written did not come back.", "Give Redis memory; it evicts at once.")
        return "written, read and removed"

    return await examine(
        "redis",
        url,
        work,
        advice="Nothing is lost without it, but hints come late: start Redis, or correct NANOBATCH_REDIS_URL.",
    )


async def examine_service(
    service: str, target: str, *, advice: str, shown: str = "", credentials: grpc.ChannelCredentials | None = None
) -> Finding:
    """Ask the health service at ``target`` whether it serves; ``credentials`` make the channel TLS.

    ``shown`` is how the person who asks wrote the target, where that is not gRPC's own form.
    """

    async def work() -> str:
        opened = grpc.aio.secure_channel(target, credentials) if credentials else grpc.aio.insecure_channel(target)
        async with opened as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise ComplaintError(
                "It is there and not ready.",
                f"The log of the {service} says what it waits for; see docs/operations.md.",
            )
        return "serves"

    return await examine(service, shown or target, work, advice=advice)


def _sentence(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {(error.details() or '').strip()}"
    if isinstance(error, NanobatchError | SettingsError):
        # What the driver said, where there is one: it names addresses and users, never a password.
        cause = error.__cause__
        said = str(getattr(cause, "orig", None) or cause or "").strip().partition("\n")[0]
        return f"{error} ({said})" if said else str(error)
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
