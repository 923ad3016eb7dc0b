"""GeneratorService: what the gateway asks of a generator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import cast

import grpc

from nanobatch.generator.v1 import generator_service_pb2 as pb
from nanobatch.generator.v1.generator_service_pb2_grpc import GeneratorServiceServicer
from nanobatch_generator.domain import ProviderError, WatcherTooSlowError
from nanobatch_generator.ports import Provider
from nanobatch_generator.progress import Progress
from nanobatch_generator.translate import viewer_from_proto
from nanobatch_runtime.errors import InvalidArgumentError, UnavailableError
from nanobatch_runtime.logs import redact

_STALL = timedelta(seconds=30)
_KEY_CHECK_SECONDS = 30.0


class GeneratorServicer(GeneratorServiceServicer):
    """Serves the contract."""

    def __init__(self, progress: Progress, providers: Mapping[str, Provider], *, stall: timedelta = _STALL) -> None:
        """A watcher that does not take a message for ``stall`` is sent away."""
        self._progress = progress
        self._providers = providers
        self._stall = stall.total_seconds()

    async def WatchProgress(
        self,
        request: pb.WatchProgressRequest,
        context: grpc.aio.ServicerContext[pb.WatchProgressRequest, pb.WatchProgressResponse],
    ) -> AsyncIterator[pb.WatchProgressResponse]:
        """See the proto."""
        seen = request.after_revision
        watch = self._progress.watch(viewer_from_proto(request.actor), request.execution_id, request.after_revision)
        async with aclosing(watch) as messages:
            async for message in messages:
                response = cast("pb.WatchProgressResponse", message)
                # Written here and not yielded: only so can a write that does not end be noticed.
                try:
                    async with asyncio.timeout(self._stall):
                        await context.write(response)
                except TimeoutError:
                    text = f"The watcher did not take a message for {self._stall:g} s; watch again."
                    raise WatcherTooSlowError(text, metadata={"revision": str(seen)}) from None
                seen = max(seen, response.update.revision)
        return
        yield  # type: ignore[unreachable]  # makes this a stream

    async def CheckApiKey(
        self,
        request: pb.CheckApiKeyRequest,
        context: grpc.aio.ServicerContext[pb.CheckApiKeyRequest, pb.CheckApiKeyResponse],
    ) -> pb.CheckApiKeyResponse:
        """See the proto."""
        provider = self._providers.get(request.provider)
        if provider is None:
            text = f"This generator does not know the provider {request.provider}."
            raise InvalidArgumentError(text, reason="PROVIDER_UNKNOWN")
        try:
            async with asyncio.timeout(_KEY_CHECK_SECONDS):
                check = await provider.check_key(request.model, request.api_key)
        except ProviderError as error:
            raise UnavailableError(redact(error.message), reason=error.code, retry_after=error.retry_after) from None
        except TimeoutError:
            text = "The provider did not answer when it was asked about the key."
            raise UnavailableError(text, reason="KEY_CHECK_TIMEOUT") from None
        return pb.CheckApiKeyResponse(
            valid=check.valid, model_available=check.model_available, message=redact(check.message)
        )
