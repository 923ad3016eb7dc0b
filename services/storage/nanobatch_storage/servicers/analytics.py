"""AnalyticsService: the ledger, added up."""

from __future__ import annotations

from typing import Any

import grpc

from nanobatch.storage.v1 import analytics_service_pb2 as pb
from nanobatch.storage.v1 import analytics_service_pb2_grpc
from nanobatch_storage.ports import Analytics
from nanobatch_storage.translate import actor_from_proto
from nanobatch_storage.translate_usage import figures_to_proto, usage_query_from_proto, usage_row_to_proto

Context = grpc.aio.ServicerContext[Any, Any]


class AnalyticsServicer(analytics_service_pb2_grpc.AnalyticsServiceServicer):
    """Translates, calls the port, translates back."""

    def __init__(self, analytics: Analytics) -> None:
        """Take the port."""
        self._analytics = analytics

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        """See the contract."""
        report = await self._analytics.usage(actor_from_proto(request.actor), usage_query_from_proto(request))
        rows = [usage_row_to_proto(row) for row in report.rows]
        return pb.GetUsageResponse(rows=rows, totals=figures_to_proto(report.totals))
