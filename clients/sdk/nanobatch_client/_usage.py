"""What was made, what it cost, and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from nanobatch.gateway.v1 import analytics_service_pb2 as pb
from nanobatch.gateway.v1 import usage_pb2
from nanobatch.gateway.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from nanobatch_client import _translate
from nanobatch_client._transport import Transport
from nanobatch_client.models import ServerStats, UsageGrouping, UsageReport

if TYPE_CHECKING:  # this name stands in the stubs' types only
    from nanobatch.gateway.v1.analytics_service_pb2_grpc import AnalyticsServiceAsyncStub


class UsageCalls:
    """Part of :class:`~nanobatch_client.client.Client`."""

    @property
    def _transport(self) -> Transport:
        raise NotImplementedError  # Client has it

    @property
    def _analytics(self) -> AnalyticsServiceAsyncStub:
        return AnalyticsServiceStub(self._transport.channel)

    async def get_usage(
        self,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        model: str = "",
        user_id: str = "",
        all_users: bool = False,
        group_by: Sequence[UsageGrouping] = (),
    ) -> UsageReport:
        """Add up the calls to providers that began in a range of time; deleted executions count as well.

        Args:
            start: its start, with a zone. Default: 30 days before ``end``.
            end: its end, not included; at most 366 days later. Default: the end of today (UTC).
            model: only this one. Default: all.
            user_id: whose calls; only admins may name somebody else. Default: one's own.
            all_users: those of everybody; only admins may.
            group_by: what the rows are divided by. Default: day, model and outcome.
        """
        request = pb.GetUsageRequest(
            start_time=_stamp(start),
            end_time=_stamp(end),
            model=model,
            user_id=user_id,
            all_users=all_users,
            group_by=[usage_pb2.UsageGrouping.Value(f"USAGE_GROUPING_{grouping.name}") for grouping in group_by],
        )
        return _translate.usage_report(await self._transport.call(self._analytics.GetUsage, request, safe=True))

    async def get_server_stats(self) -> ServerStats:
        """Say how the server is doing: queue, generators, keys that wait. Admins only."""
        answer = await self._transport.call(self._analytics.GetServerStats, pb.GetServerStatsRequest(), safe=True)
        return _translate.server_stats(answer.stats)


def _stamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    if time.tzinfo is None:
        raise ValueError("a time needs a zone, like datetime.now(UTC)")
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
