"""Usage and the state of the queue: protobuf to domain and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from nanobatch.gateway.v1 import server_stats_pb2, usage_pb2
from nanobatch.storage.v1 import analytics_service_pb2 as pb
from nanobatch_runtime.errors import FieldViolation, InvalidArgumentError
from nanobatch_storage.stats import QueueStats
from nanobatch_storage.usage import Grouping, UsageFigures, UsageQuery, UsageRow

_GROUPINGS = {usage_pb2.UsageGrouping.Value(f"USAGE_GROUPING_{grouping}"): grouping for grouping in Grouping}


def usage_query_from_proto(request: pb.GetUsageRequest) -> UsageQuery:
    """Return the domain's form. Raises InvalidArgumentError for a grouping that does not exist."""
    unknown = [number for number in request.group_by if number not in _GROUPINGS]
    if unknown:
        violation = FieldViolation("group_by", f"There is no grouping number {unknown[0]}.", "UNKNOWN_VALUE")
        raise InvalidArgumentError("The request names a grouping that does not exist.", violations=[violation])
    return UsageQuery(
        start=request.start_time.ToDatetime(tzinfo=UTC),
        end=request.end_time.ToDatetime(tzinfo=UTC),
        model=request.model,
        user_id=request.user_id or None,
        group_by=frozenset(_GROUPINGS[number] for number in request.group_by),
    )


def usage_row_to_proto(row: UsageRow) -> usage_pb2.UsageRow:
    """Return the wire form."""
    usage = figures_to_proto(row.figures)
    return usage_pb2.UsageRow(day=row.day, model=row.model, outcome=row.outcome, usage=usage)


def figures_to_proto(figures: UsageFigures) -> usage_pb2.Usage:
    """Return the wire form."""
    message = usage_pb2.Usage(
        pictures=figures.pictures,
        attempts=figures.attempts,
        cost_micros=figures.cost_micros,
        uncertain_micros=figures.uncertain_micros,
    )
    for field, latency in (
        (message.latency_p50, figures.p50),
        (message.latency_p90, figures.p90),
        (message.latency_p99, figures.p99),
    ):
        if latency is not None:
            field.FromTimedelta(latency)
    return message


def stats_to_proto(stats: QueueStats, generators: Mapping[str, datetime]) -> server_stats_pb2.ServerStats:
    """Return the wire form."""
    message = server_stats_pb2.ServerStats(
        results_ready=stats.ready,
        results_later=stats.later,
        results_in_flight=stats.in_flight,
        leases_expired=stats.expired,
        executions_active=stats.active,
        executions_paused=[
            server_stats_pb2.PausedExecutions(reason=reason, count=count)
            for reason, count in sorted(stats.paused.items())
        ],
        tasks_out=stats.tasks_out,
        results_cooling=stats.cooling_results,
    )
    message.read_time.FromDatetime(stats.read_at)
    if stats.oldest_ready is not None:
        message.oldest_ready_time.FromDatetime(stats.oldest_ready)
    for key in stats.cooling:
        cooling = message.cooling_keys.add(
            provider=key.provider, model=key.model, reason=key.reason, results=key.results
        )
        cooling.until_time.FromDatetime(key.until)
    for task in stats.tasks:
        out = message.tasks.add(provider=task.provider, task_id=task.task_id, execution_id=task.execution_id)
        out.submit_time.FromDatetime(task.since)
        out.timeout.FromTimedelta(task.timeout)
    for name, seen in generators.items():
        message.generators.add(name=name).last_seen_time.FromDatetime(seen)
    return message
