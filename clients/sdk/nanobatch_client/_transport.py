"""The channel: limits, deadlines, errors by class, and repeats of what is safe to repeat."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from importlib import metadata
from typing import Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from nanobatch_client.errors import BY_CODE, NanobatchError, UnavailableError, UnreachableError, Violation
from nanobatch_client.models import Patience
from nanobatch_client.targets import under_tls

T = TypeVar("T")
Request_contra = TypeVar("Request_contra", contravariant=True)
Response_co = TypeVar("Response_co", covariant=True)

CHUNK_BYTES = 256 * 1024
"""Size of a piece of a picture on a stream."""

# The numbers of services/runtime/nanobatch_runtime/rpc/options.py, which this package may not import: a ping rate that
# only one end knows ends in GOAWAY.
_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_send_message_length", 4 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # a name that misleads: how long one try to connect may take
    ("grpc.max_reconnect_backoff_ms", 2000),
)
# Where a target names several gateways, calls go round those that answer. Repeats are made below, not by gRPC: with more
# patience, and with a word about what is wrong.
_ROUND_ROBIN: tuple[tuple[str, int | str], ...] = (
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
)

# Without details of ours nobody answered. CANCELLED is gRPC's own word for calls that a server which ends has not looked at.
_NOBODY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})

_BACKOFF_BASE = timedelta(milliseconds=100)
_BACKOFF_CAP = timedelta(seconds=2)
_DETAILS_KEY = "grpc-status-details-bin"


class UnaryMethod(Protocol[Request_contra, Response_co]):
    """A unary method of a stub."""

    def __call__(
        self, request: Request_contra, /, *, timeout: float | None = None, metadata: grpc.aio.Metadata | None = None
    ) -> Awaitable[Response_co]:
        """Start the call."""
        ...


class Transport:
    """One channel to one gateway."""

    def __init__(
        self, target: str, *, token: str | None, credentials: grpc.ChannelCredentials | None, patience: Patience
    ) -> None:
        """``credentials`` make the channel TLS; ``token`` goes with every call as a bearer token."""
        self.target = target
        self.patience = patience
        self.metadata = grpc.aio.Metadata(*([("authorization", f"Bearer {token}")] if token else []))
        target, credentials = under_tls(target, credentials)
        several = () if target.startswith("unix:") else _ROUND_ROBIN
        options = (*_OPTIONS, *several, ("grpc.primary_user_agent", f"nanobatch-python/{_version()}"))
        self.channel = (
            grpc.aio.secure_channel(target, credentials, options=options)
            if credentials
            else grpc.aio.insecure_channel(target, options=options)
        )
        self.answered = False
        """Whether the server has ever answered: one that never did is given up sooner."""

    async def close(self) -> None:
        """Close the channel; calls that are out end."""
        await self.channel.close()

    async def call(
        self, method: UnaryMethod[Request_contra, Response_co], request: Request_contra, *, safe: bool = False
    ) -> Response_co:
        """Make a unary call; ``safe``: a repeat cannot do harm, so UNAVAILABLE is tried again for a while."""

        async def once() -> Response_co:
            timeout = self.patience.timeout.total_seconds()
            try:
                return await method(request, timeout=timeout, metadata=self.metadata)
            except grpc.aio.AioRpcError as error:
                raise self.error(error) from None

        return await self.repeat(once) if safe else self.noted(await once())

    async def repeat(self, once: Callable[[], Awaitable[T]]) -> T:
        """Await ``once()``, again on UNAVAILABLE while patience lasts; then its last error is raised."""
        began = time.monotonic()
        failures = 0
        while True:
            try:
                return self.noted(await once())
            except UnavailableError as error:
                failures += 1
                wait = backoff(failures, error)
                if time.monotonic() - began + wait > self.limit(self.patience.retry):
                    raise
            await asyncio.sleep(wait)

    def limit(self, patience: timedelta) -> float:
        """Seconds to go on trying: ``patience``, or less for a server that has never answered."""
        return (patience if self.answered else min(patience, self.patience.connect)).total_seconds()

    def noted(self, answer: T) -> T:
        """Return ``answer``, and remember that the server is there."""
        self.answered = True
        return answer

    def error(self, error: grpc.aio.AioRpcError) -> NanobatchError:
        """Return the SDK's error for what a call ended in."""
        ours = to_error(error, self.target)
        if not isinstance(ours, UnreachableError):
            self.answered = True
        return ours


def backoff(failures: int, error: NanobatchError) -> float:
    """Seconds to wait after the nth failure in a row: full jitter, but never less than the server asked for."""
    ceiling = min(_BACKOFF_CAP, _BACKOFF_BASE * (1 << min(failures - 1, 10)))
    wait = ceiling * random.random()  # noqa: S311  # spreads load, guards nothing
    return max(wait, error.retry_after or timedelta()).total_seconds()


def to_error(error: grpc.aio.AioRpcError, target: str) -> NanobatchError:
    """Turn a status into the class of its code, with ``ErrorInfo``, ``BadRequest`` and ``RetryInfo`` read in."""
    code: grpc.StatusCode = error.code()
    info, violations, retry_after = _details(error)
    if code in _NOBODY and info is None:
        message = f"No nanobatch server answers at {target}."
        return UnreachableError(message, reason="UNREACHABLE", metadata={"cause": error.details() or ""})
    return BY_CODE.get(code.name, NanobatchError)(
        error.details() or code.name,
        reason=info.reason if info else code.name,
        violations=violations,
        metadata=dict(info.metadata) if info else None,
        retry_after=retry_after,
    )


def has_details(error: grpc.aio.AioRpcError) -> bool:
    """Whether a nanobatch server made this status; without details it came from a proxy or a broken connection."""
    return _details(error)[0] is not None


def _details(
    error: grpc.aio.AioRpcError,
) -> tuple[error_details_pb2.ErrorInfo | None, list[Violation], timedelta | None]:
    info: error_details_pb2.ErrorInfo | None = None
    violations: list[Violation] = []
    retry_after: timedelta | None = None
    for detail in _status(error).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            violations = [Violation(v.field, v.description, v.reason) for v in bad.field_violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry_after = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay.ToTimedelta()
    return info, violations, retry_after


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:  # a proxy's own idea of the trailer: the code and the message still stand
                break
    return status_pb2.Status()


def _version() -> str:
    try:
        return metadata.version("nanobatch-client")
    except metadata.PackageNotFoundError:  # run from a folder of sources
        return "0"
