"""Which Redis storage has, over gRPC."""

from __future__ import annotations

import grpc

from nanobatch.storage.v1 import hint_service_pb2 as pb
from nanobatch.storage.v1.hint_service_pb2_grpc import HintServiceStub
from nanobatch_generator.adapters.errors_grpc import translated
from nanobatch_runtime.errors import Kind, RemoteError

_SECONDS = 10.0


class GrpcHints:
    """Asks storage."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """``channel`` belongs to the caller."""
        self._stub = HintServiceStub(channel)

    async def described(self) -> tuple[bool, str] | None:
        """Return whether storage has a Redis, and its identity; None where it cannot say. Raises StorageDownError."""
        try:
            with translated():
                found = await self._stub.DescribeHints(pb.DescribeHintsRequest(), timeout=_SECONDS)
        except RemoteError as error:
            if error.kind is Kind.UNIMPLEMENTED:  # a storage of the version before, in a rolling update
                return None
            raise
        return found.uses_redis, found.redis_identity
