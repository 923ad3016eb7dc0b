"""HintService: which Redis carries storage's hints."""

from __future__ import annotations

from typing import Any

import grpc

from nanobatch.storage.v1 import hint_service_pb2 as pb
from nanobatch.storage.v1 import hint_service_pb2_grpc
from nanobatch_runtime.redis import identity


class HintServicer(hint_service_pb2_grpc.HintServiceServicer):
    """Looks at the moment it is asked: a Redis that was emptied has another identity."""

    def __init__(self, redis: str) -> None:
        """``redis`` is its URL; empty: none."""
        self._redis = redis

    async def DescribeHints(
        self, request: pb.DescribeHintsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.DescribeHintsResponse:
        """See the contract."""
        word = await identity(self._redis) if self._redis else ""
        return pb.DescribeHintsResponse(uses_redis=bool(self._redis), redis_identity=word)
