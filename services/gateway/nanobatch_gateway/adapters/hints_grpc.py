"""Which Redis storage has, over gRPC."""

from __future__ import annotations

import grpc

from nanobatch.storage.v1 import hint_service_pb2 as pb
from nanobatch.storage.v1 import hint_service_pb2_grpc
from nanobatch_gateway.adapters.calls import ask_storage, limit
from nanobatch_runtime.errors import Kind, RemoteError


class GrpcHints:
    """Asks storage."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to storage; it stays the caller's."""
        self._stub = hint_service_pb2_grpc.HintServiceStub(channel)

    async def described(self) -> tuple[bool, str] | None:
        """Return whether storage has a Redis, and its identity; None where it cannot say."""
        try:
            found = await ask_storage(self._stub.DescribeHints(pb.DescribeHintsRequest(), timeout=limit()))
        except RemoteError as error:
            if error.kind is Kind.UNIMPLEMENTED:  # a storage of the version before, in a rolling update
                return None
            raise
        return found.uses_redis, found.redis_identity
