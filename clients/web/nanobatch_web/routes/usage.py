"""What the statistics page shows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from nanobatch_client import Client, Usage, UsageGrouping
from nanobatch_web.routes.answers import answer
from nanobatch_web.viewers import Viewers

_LONGEST_DAYS = 366


def router(viewers: Viewers) -> APIRouter:
    """Return the route."""
    routes = APIRouter()

    @routes.get("/usage")
    async def usage(
        request: Request,
        days: Annotated[int, Query(ge=1, le=_LONGEST_DAYS)] = 30,
        everybody: bool = False,  # noqa: FBT001, FBT002  # a query parameter
    ) -> Response:
        viewer = await viewers.of(request.headers)
        return answer(await _statistics(viewer.client, days, datetime.now(UTC), everybody=everybody))

    return routes


async def _statistics(client: Client, days: int, now: datetime, *, everybody: bool) -> dict[str, Any]:
    """Return usage of ``days`` days (UTC) with today as the last; money in micros, times in seconds.

    ``everybody`` is for admins; the gateway refuses it to others.
    """
    end = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    start = end - timedelta(days=days)
    day, model, outcome = UsageGrouping.DAY, UsageGrouping.MODEL, UsageGrouping.OUTCOME
    # Percentiles cannot be added up: each chart asks for its own groups.
    by_day, by_model, by_outcome = await asyncio.gather(
        *(
            client.get_usage(start=start, end=end, group_by=groups, all_users=everybody)
            for groups in ([day, model], [model], [outcome])
        )
    )
    return {
        "days": [(start + timedelta(days=number)).date().isoformat() for number in range(days)],
        "by_day": [{"day": str(row.day), "model": row.model, **_figures(row.usage)} for row in by_day.rows],
        "by_model": [{"model": row.model, **_figures(row.usage)} for row in by_model.rows],
        "by_outcome": [{"outcome": row.outcome, **_figures(row.usage)} for row in by_outcome.rows],
        "totals": _figures(by_model.totals),
    }


def _figures(usage: Usage) -> dict[str, Any]:
    return {
        "pictures": usage.pictures,
        "attempts": usage.attempts,
        "cost": usage.cost_micros,
        "uncertain": usage.uncertain_micros,
        "p50": _seconds(usage.latency_p50),
        "p90": _seconds(usage.latency_p90),
        "p99": _seconds(usage.latency_p99),
    }


def _seconds(latency: timedelta | None) -> float | None:
    return None if latency is None else latency.total_seconds()
