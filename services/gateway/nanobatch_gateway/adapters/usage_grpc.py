"""The ledger in storage, over gRPC."""

from __future__ import annotations

import grpc

from nanobatch.gateway.v1 import usage_pb2
from nanobatch.storage.v1 import analytics_service_pb2 as pb
from nanobatch.storage.v1 import analytics_service_pb2_grpc
from nanobatch_gateway import translate
from nanobatch_gateway.adapters.calls import ask_storage, limit
from nanobatch_gateway.domain import Caller, Message, UsageQuery
from nanobatch_gateway.times import stamp


class GrpcUsageReports:
    """See :class:`nanobatch_gateway.ports.UsageReports` and ``ServerStats``."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to storage; it stays the caller's."""
        self._stub = analytics_service_pb2_grpc.AnalyticsServiceStub(channel)

    async def usage(self, caller: Caller, query: UsageQuery) -> Message:
        """See the port."""
        request = pb.GetUsageRequest(
            actor=translate.actor(caller),
            start_time=stamp(query.start),
            end_time=stamp(query.end),
            model=query.model,
            user_id=query.user_id,
            group_by=[usage_pb2.UsageGrouping.ValueType(number) for number in query.group_by],
        )
        return await ask_storage(self._stub.GetUsage(request, timeout=limit()))

    async def server_stats(self, caller: Caller) -> Message:
        """See :class:`nanobatch_gateway.ports.ServerStats`."""
        request = pb.GetServerStatsRequest(actor=translate.actor(caller))
        return (await ask_storage(self._stub.GetServerStats(request, timeout=limit()))).stats
