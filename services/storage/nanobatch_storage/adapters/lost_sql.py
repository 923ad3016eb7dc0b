"""Leases that have run out: looked for a few times a second, each time from where the last look ended."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta

from sqlalchemy import bindparam, func, select

from nanobatch_storage.adapters.database import Transaction
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.tables import PROCESSING, UtcDateTime, active_executions, results

EVERY = timedelta(milliseconds=250)
_WHOLE_EVERY = timedelta(minutes=1)
_OVERLAP = timedelta(seconds=5)
"""A lease may be written down so much later than the time that it counts from: its transaction has waited for locks."""
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

_LOST = Prepared(
    select(results.c.execution_id, func.count().label("lost"), func.min(results.c.ready_at).label("first"))
    .where(
        results.c.execution_id.in_(select(active_executions.c.execution_id)),
        PROCESSING,
        results.c.ready_at > bindparam("since", type_=UtcDateTime),
        results.c.ready_at <= bindparam("until", type_=UtcDateTime),
    )
    .group_by(results.c.execution_id)
)


class LostLeases:
    """What one storage knows of leases that have run out.

    A lease only ever gets a later end, and a new one ends after all that ran out before: what was looked through once need not
    be again. That matters while an old snapshot is open, since the index entries of all leases that there ever were stay then.
    Everything is looked through nevertheless once a minute, when the clock went back, and when an execution is able to run
    again that had lost leases while it was not: paused, or with a key that has to wait.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._since = _BEGINNING
        self._looked_at: datetime | None = None
        self._whole_at: datetime | None = None
        self._found: dict[str, int] = {}
        self._aside: set[str] = set()

    async def of(self, tx: Transaction, able: AbstractSet[str], until: datetime) -> Mapping[str, int]:
        """Return how many leases of each execution had run out by ``until``, which is about now, or shortly before.

        Only those of executions that are able to run count, or keep the next look from beginning later.
        """
        if self._is_time_for_all(tx.now) or not self._aside.isdisjoint(able):
            self._whole_at, self._looked_at, self._since = tx.now, None, _BEGINNING
            self._aside.clear()
        if self._looked_at is not None and tx.now - self._looked_at < EVERY:
            return self._found
        found = (await tx.connection.execute(_LOST, {"since": self._since, "until": until})).all()
        counted = [row for row in found if row.execution_id in able]
        self._aside.update(row.execution_id for row in found if row.execution_id not in able)
        self._found = {row.execution_id: row.lost for row in counted}
        self._since = max(self._since, min([until, *(row.first for row in counted)]) - _OVERLAP)
        self._looked_at = tx.now
        return self._found

    def look_anew(self) -> None:
        """Forget what was found: some are being leased again, or ran out all of a sudden."""
        self._looked_at = None

    def _is_time_for_all(self, now: datetime) -> bool:
        last = self._whole_at
        return last is None or not last <= (self._looked_at or now) <= now < last + _WHOLE_EVERY
