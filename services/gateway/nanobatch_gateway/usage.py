"""GetUsage: what calls to providers came to."""

from __future__ import annotations

from datetime import timedelta

from nanobatch_gateway.domain import AdminOnlyError, Caller, Message, UsageDraft, UsageQuery
from nanobatch_gateway.fields import Violations
from nanobatch_gateway.ports import UsageReports
from nanobatch_runtime.clock import Clock

LONGEST_RANGE = timedelta(days=366)
DEFAULT_RANGE = timedelta(days=30)
GROUPINGS = (1, 2, 3)
"""Numbers of ``nanobatch.gateway.v1.UsageGrouping``: day, model, outcome."""
MAX_MODEL_CHARACTERS = 128


class GetUsage:
    """Checks what is asked and fills in what was left out."""

    def __init__(self, reports: UsageReports, clock: Clock) -> None:
        """Take what it works with."""
        self._reports = reports
        self._clock = clock

    async def __call__(self, caller: Caller, draft: UsageDraft) -> tuple[UsageQuery, Message]:
        """Return what was asked for, whole, and what storage says to it. Raises InvalidRequestError, AdminOnlyError."""
        # Days begin and end whole where nothing else was said, whatever the clocks of gateway and database say.
        today = self._clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        end = draft.end or today + timedelta(days=1)
        start = draft.start or end - DEFAULT_RANGE
        found = Violations()
        if start >= end:
            found.add("start_time", "The range is empty: start_time must lie before end_time.", "OUT_OF_RANGE")
        elif end - start > LONGEST_RANGE:
            text = f"The range is {(end - start) / timedelta(days=1):,.1f} days long; at most {LONGEST_RANGE.days}."
            found.add("start_time", text, "OUT_OF_RANGE")
        if len(draft.model) > MAX_MODEL_CHARACTERS:
            found.add("model", f"The model is longer than {MAX_MODEL_CHARACTERS} characters.", "TOO_LONG")
        found.plain_text("model", draft.model, "The model")
        found.id("user_id", draft.user_id)
        if draft.user_id and draft.all_users:
            found.add("all_users", "Name one user, or ask for all of them.", "CONFLICT")
        for place, number in enumerate(draft.group_by):
            if number not in GROUPINGS:
                found.add(f"group_by[{place}]", f"There is no grouping number {number}.", "UNKNOWN_VALUE")
        found.raise_any()
        if draft.all_users and not caller.admin:
            raise AdminOnlyError("Only an admin may ask for the usage of all users.")
        whose = "" if draft.all_users else draft.user_id or caller.user_id
        group_by = tuple(sorted(set(draft.group_by))) or GROUPINGS
        query = UsageQuery(start, end, draft.model, whose, group_by)
        return query, await self._reports.usage(caller, query)
