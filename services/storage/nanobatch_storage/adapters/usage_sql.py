"""The ledger, added up."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Dialect,
    Row,
    Select,
    String,
    Subquery,
    bindparam,
    case,
    cast,
    func,
    literal,
    literal_column,
    select,
    union_all,
)

from nanobatch_runtime.errors import FieldViolation, InvalidArgumentError
from nanobatch_storage.adapters.database import Database
from nanobatch_storage.adapters.tables import attempts, users
from nanobatch_storage.adapters.users_sql import find_user
from nanobatch_storage.domain import Actor, Charged
from nanobatch_storage.errors import AdminOnlyError
from nanobatch_storage.usage import MAX_ROWS, Grouping, UsageFigures, UsageQuery, UsageReport, UsageRow

_PERCENTILES = (50, 90, 99)
_COMPLETED = attempts.c.outcome == "COMPLETED"
# As executions count it: what may have been charged and was not reported, with its worst case.
_UNKNOWN = (attempts.c.charged == Charged.MAYBE) & attempts.c.usage_reported.is_(False)


class SqlAnalytics:
    """See :class:`nanobatch_storage.ports.Analytics`."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._database = database

    async def usage(self, actor: Actor, query: UsageQuery) -> UsageReport:
        """See the port."""
        if query.user_id is None and not actor.admin:
            raise AdminOnlyError
        if query.user_id is not None:
            async with self._database.read(actor) as tx:
                await find_user(tx, actor, query.user_id)
        calls = _calls(query, self._database.dialect)
        # One statement, so that the totals are those of the rows.
        parts = (
            [_added_up(calls, ())] if not query.group_by else [_added_up(calls, ()), _added_up(calls, query.group_by)]
        )
        statement = union_all(*parts).limit(MAX_ROWS + 2)
        found = await self._database.survey(statement, actor)
        totals = next(row for row in found if row.all_of_it)
        groups = [row for row in found if not row.all_of_it]
        if len(groups) > MAX_ROWS:
            text = f"These are more than {MAX_ROWS:,} rows: choose a shorter range, or group by less."
            raise InvalidArgumentError(text, violations=[FieldViolation("group_by", text, "TOO_MANY")])
        rows = [UsageRow(row.day, row.model, row.outcome, _figures(row)) for row in groups]
        return UsageReport(sorted(rows, key=lambda row: (row.day, row.model, row.outcome)), _figures(totals))


def _calls(query: UsageQuery, dialect: Dialect) -> Subquery:
    """Return the calls that were asked for. RELEASED ones were never made, open ones have not cost anything yet."""
    # Everybody is each user in turn: then the index on user and time serves, and the ledger needs no further one.
    whose = attempts.c.user_id.in_(select(users.c.id)) if query.user_id is None else attempts.c.user_id == query.user_id
    return (
        select(
            _day(dialect).label("day"),
            attempts.c.model.label("model"),
            attempts.c.outcome.label("outcome"),
            case((_COMPLETED, 1), else_=0).label("picture"),
            attempts.c.cost_micros.label("cost"),
            case((_UNKNOWN, attempts.c.reserved_micros), else_=0).label("uncertain"),
            case((_COMPLETED, attempts.c.processing_ms)).label("ms"),
        )
        .where(
            whose,
            attempts.c.start_time >= bindparam("start", query.start, attempts.c.start_time.type),
            attempts.c.start_time < bindparam("end", query.end, attempts.c.start_time.type),
            attempts.c.charged.is_not(None),
            attempts.c.outcome != "RELEASED",
            *([attempts.c.model == query.model] if query.model else []),
        )
        .subquery("calls")
    )


def _day(dialect: Dialect) -> ColumnElement[str]:
    if dialect.name == "sqlite":  # stored as UTC text that begins with the day
        return func.substr(cast(attempts.c.start_time, String), 1, 10, type_=String)
    return func.to_char(func.timezone("UTC", attempts.c.start_time), "YYYY-MM-DD", type_=String)


def _added_up(calls: Subquery, group_by: Collection[Grouping]) -> Select[Any]:
    """Return a row for each group; none: one for all calls, also where there are none.

    A percentile is the nearest rank: the smallest time that so many of 100 calls did not exceed.
    """
    names = [grouping.lower() for grouping in Grouping if grouping in group_by]
    keys = [calls.c[name] for name in names]
    ranked = select(
        calls,
        func.row_number().over(partition_by=keys or None, order_by=calls.c.ms.nulls_last()).label("rank"),
        func.count(calls.c.ms).over(partition_by=keys or None).label("timed"),
    ).subquery("ranked")
    shown = [
        (ranked.c[name] if (name := grouping.lower()) in names else literal("", String)).label(grouping.lower())
        for grouping in Grouping
    ]
    statement = select(
        literal_column("0" if group_by else "1").label("all_of_it"),
        *shown,
        func.coalesce(func.sum(ranked.c.picture), 0).label("pictures"),
        func.count().label("attempts"),
        func.coalesce(func.sum(ranked.c.cost), 0).label("cost"),
        func.coalesce(func.sum(ranked.c.uncertain), 0).label("uncertain"),
        *(
            func.min(case((ranked.c.rank * 100 >= ranked.c.timed * percent, ranked.c.ms))).label(f"p{percent}")
            for percent in _PERCENTILES
        ),
    ).select_from(ranked)
    return statement.group_by(*(ranked.c[name] for name in names))


def _figures(row: Row[Any]) -> UsageFigures:
    p50, p90, p99 = (None if ms is None else timedelta(milliseconds=int(ms)) for ms in (row.p50, row.p90, row.p99))
    return UsageFigures(
        int(row.pictures), int(row.attempts), int(row.cost), int(row.uncertain), p50=p50, p90=p90, p99=p99
    )
