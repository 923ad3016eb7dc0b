"""AnalyticsService: the ledger, added up, and the queue, counted."""

from __future__ import annotations

from typing import Any

import grpc

from nanobatch.storage.v1 import analytics_service_pb2 as pb
from nanobatch.storage.v1 import analytics_service_pb2_grpc
from nanobatch_storage.ports import Analytics, Stats
from nanobatch_storage.stats import SeenGenerators
from nanobatch_storage.translate import actor_from_proto
from nanobatch_storage.translate_usage import (
    figures_to_proto,
    stats_to_proto,
    usage_query_from_proto,
    usage_row_to_proto,
)

Context = grpc.aio.ServicerContext[Any, Any]


class AnalyticsServicer(analytics_service_pb2_grpc.AnalyticsServiceServicer):
    """Translates, calls the port, translates back."""

    def __init__(self, analytics: Analytics, stats: Stats, generators: SeenGenerators) -> None:
        """Take the ports, and who was heard of."""
        self._analytics = analytics
        self._stats = stats
        self._generators = generators

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        """See the contract."""
        report = await self._analytics.usage(actor_from_proto(request.actor), usage_query_from_proto(request))
        rows = [usage_row_to_proto(row) for row in report.rows]
        return pb.GetUsageResponse(rows=rows, totals=figures_to_proto(report.totals))

    async def GetServerStats(self, request: pb.GetServerStatsRequest, context: Context) -> pb.GetServerStatsResponse:
        """See the contract."""
        stats = await self._stats.queue(actor_from_proto(request.actor))
        key_ids = sorted(await self._stats.key_ids())
        return pb.GetServerStatsResponse(stats=stats_to_proto(stats, self._generators.lately()), key_ids=key_ids)
