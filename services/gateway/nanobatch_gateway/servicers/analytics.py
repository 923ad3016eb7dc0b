"""AnalyticsService."""

from __future__ import annotations

from typing import Any

import grpc

from nanobatch.gateway.v1 import analytics_service_pb2 as pb
from nanobatch.gateway.v1 import analytics_service_pb2_grpc
from nanobatch_gateway.auth import current_caller
from nanobatch_gateway.domain import UsageDraft
from nanobatch_gateway.ports import ServerStats
from nanobatch_gateway.times import instant, stamp
from nanobatch_gateway.usage import GetUsage

Context = grpc.aio.ServicerContext[Any, Any]


class AnalyticsServicer(analytics_service_pb2_grpc.AnalyticsServiceServicer):
    """Usage and stats over gRPC; the contract stands in the proto."""

    def __init__(self, get_usage: GetUsage, stats: ServerStats) -> None:
        """Take the use case, and where stats come from."""
        self._get_usage = get_usage
        self._stats = stats

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        """See the proto."""
        draft = UsageDraft(
            start=instant(request.start_time) if request.HasField("start_time") else None,
            end=instant(request.end_time) if request.HasField("end_time") else None,
            model=request.model,
            user_id=request.user_id,
            all_users=request.all_users,
            group_by=tuple(request.group_by),
        )
        query, report = await self._get_usage(current_caller(), draft)
        return pb.GetUsageResponse(
            rows=report.rows, totals=report.totals, start_time=stamp(query.start), end_time=stamp(query.end)
        )

    async def GetServerStats(self, request: pb.GetServerStatsRequest, context: Context) -> pb.GetServerStatsResponse:
        """See the proto."""
        return pb.GetServerStatsResponse(stats=await self._stats.server_stats(current_caller()))
