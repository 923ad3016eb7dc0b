"""Places where an execution can be followed, and what only a generator can do, over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Protocol

import grpc
from google.protobuf import timestamp_pb2

from nanobatch.gateway.v1 import execution_service_pb2
from nanobatch.generator.v1 import generator_service_pb2, generator_service_pb2_grpc
from nanobatch.storage.v1 import common_pb2, execution_service_pb2_grpc
from nanobatch.storage.v1 import execution_service_pb2 as storage_pb2
from nanobatch_gateway import translate
from nanobatch_gateway.adapters.calls import STREAM_LIMIT, is_transport_trouble, limit
from nanobatch_gateway.domain import GeneratorUnavailableError, KeyVerdict, SourceLostError, Update
from nanobatch_runtime.errors import Kind, RemoteError
from nanobatch_runtime.lifecycle import cancel
from nanobatch_runtime.rpc import channel as channels

# One stream serves watchers of several users; each of them is checked before they join.
_SYSTEM = common_pb2.Actor(user_id="system", admin=True)

_CHECK_LIMIT = timedelta(seconds=30)

_ABOUT_THE_EXECUTION = frozenset(
    {
        Kind.NOT_FOUND,
        Kind.OUT_OF_RANGE,
        Kind.INVALID_ARGUMENT,
        Kind.FAILED_PRECONDITION,
        Kind.PERMISSION_DENIED,
    }
)
"""What another source would answer just the same. Everything else is about this source only."""


class _Response(Protocol):
    @property
    def update(self) -> execution_service_pb2.WatchExecutionResponse: ...
    @property
    def change_time(self) -> timestamp_pb2.Timestamp: ...


class GeneratorChanges:
    """The generators' streams: see :class:`nanobatch_gateway.ports.Changes`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to the generators; it stays the caller's."""
        self._stub = generator_service_pb2_grpc.GeneratorServiceStub(channel)

    @asynccontextmanager
    async def follow(self, execution_id: str, after_revision: int) -> AsyncIterator[AsyncIterator[Update]]:
        """See :class:`nanobatch_gateway.ports.Changes`."""
        request = generator_service_pb2.WatchProgressRequest(
            actor=_SYSTEM, execution_id=execution_id, after_revision=after_revision
        )
        call = self._stub.WatchProgress(request, timeout=limit(STREAM_LIMIT))
        try:
            yield _updates(aiter(call))
        finally:
            call.cancel()


class StorageChanges:
    """Storage's streams: see :class:`nanobatch_gateway.ports.Changes`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to storage; it stays the caller's."""
        self._stub = execution_service_pb2_grpc.ExecutionServiceStub(channel)

    @asynccontextmanager
    async def follow(self, execution_id: str, after_revision: int) -> AsyncIterator[AsyncIterator[Update]]:
        """See :class:`nanobatch_gateway.ports.Changes`."""
        request = storage_pb2.WatchChangesRequest(
            actor=_SYSTEM, execution_id=execution_id, after_revision=after_revision
        )
        call = self._stub.WatchChanges(request, timeout=limit(STREAM_LIMIT))
        try:
            yield _updates(aiter(call))
        finally:
            call.cancel()


async def _updates(responses: AsyncIterator[_Response]) -> AsyncIterator[Update]:
    try:
        async for response in channels.stream(responses):
            changed = response.change_time
            yield translate.watch_update(response.update, changed.seconds + changed.nanos / 1e9)
    except RemoteError as error:
        if error.kind in _ABOUT_THE_EXECUTION:
            raise
        raise SourceLostError("The stream broke off.", reason=error.reason) from None


class GeneratorPresence:
    """See :class:`nanobatch_gateway.ports.Presence`. One task follows the channel's state for all who wait."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to the generators; it stays the caller's."""
        self._channel = channel
        self._there = asyncio.Event()
        self._waiting = 0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[GeneratorPresence]:
        """Follow the channel while the context is open; close the channel after it, not before."""
        task = asyncio.create_task(self._follow(), name="generator-presence")
        try:
            yield self
        finally:
            await cancel(task)

    async def wait(self) -> None:
        """See :class:`nanobatch_gateway.ports.Presence`."""
        self._waiting += 1
        try:
            if not self._there.is_set():
                self._channel.get_state(try_to_connect=True)  # an idle channel would never be there by itself
            await self._there.wait()
        finally:
            self._waiting -= 1

    async def _follow(self) -> None:
        while True:
            state = self._channel.get_state(try_to_connect=self._waiting > 0)
            if state is grpc.ChannelConnectivity.READY:
                self._there.set()
            else:
                self._there.clear()
            if state is grpc.ChannelConnectivity.SHUTDOWN:
                return
            await self._channel.wait_for_state_change(state)


class GeneratorKeyChecks:
    """See :class:`nanobatch_gateway.ports.KeyChecks`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to the generators; it stays the caller's."""
        self._stub = generator_service_pb2_grpc.GeneratorServiceStub(channel)

    async def check(self, provider: str, model: str, api_key: str) -> KeyVerdict:
        """See :class:`nanobatch_gateway.ports.KeyChecks`."""
        request = generator_service_pb2.CheckApiKeyRequest(provider=provider, model=model, api_key=api_key)
        try:
            response = await channels.call(self._stub.CheckApiKey(request, timeout=limit(_CHECK_LIMIT)))
        except RemoteError as error:
            if not is_transport_trouble(error):
                raise
            raise GeneratorUnavailableError(
                "No generator is up, and only a generator can ask the provider about a key; try again in a moment.",
                retry_after=timedelta(seconds=1),
            ) from None
        return KeyVerdict(response.valid, response.model_available, response.message)
