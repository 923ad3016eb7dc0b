"""Which Redis storage has, over gRPC."""

from __future__ import annotations

import grpc

from nanobatch.storage.v1 import hint_service_pb2 as pb
from nanobatch.storage.v1 import hint_service_pb2_grpc
from nanobatch_gateway.adapters.calls import ask_storage, limit


class GrpcHints:
    """Asks storage."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to storage; it stays the caller's."""
        self._stub = hint_service_pb2_grpc.HintServiceStub(channel)

    async def described(self) -> tuple[bool, str] | None:
        """Return whether storage has a Redis, and its identity; None where it cannot say."""
        found = await ask_storage(self._asked())
        return None if found is None else (found.uses_redis, found.redis_identity)

    async def _asked(self) -> pb.DescribeHintsResponse | None:
        try:
            return await self._stub.DescribeHints(pb.DescribeHintsRequest(), timeout=limit())
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:  # of the version before, in a rolling update
                return None
            raise
