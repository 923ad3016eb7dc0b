"""What may be asked of the ledger, and what stands for what was left out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from nanobatch_gateway.domain import AdminOnlyError, Caller, InvalidRequestError, UsageDraft
from nanobatch_gateway.usage import GetUsage
from nanobatch_runtime.clock import ManualClock

NOON = datetime(2026, 3, 10, 12, 34, 56, tzinfo=UTC)
CLIENT = Caller("00000000-0000-4000-8000-000000000002", admin=False)
ADMIN = Caller("00000000-0000-4000-8000-000000000003", admin=True)


class Reports:
    """Storage that answers with what it was asked."""

    async def usage(self, caller, query):
        return caller, query


async def ask(caller=CLIENT, **fields):
    query, answer = await GetUsage(Reports(), ManualClock(NOON))(caller, UsageDraft(**fields))
    assert answer == (caller, query)
    return query


async def violations(caller=CLIENT, **fields):
    with pytest.raises(InvalidRequestError) as caught:
        await ask(caller, **fields)
    return [(violation.field, violation.reason) for violation in caught.value.violations]


async def test_by_default_it_is_ones_own_thirty_whole_days_by_everything():
    query = await ask()
    assert (query.start, query.end) == (datetime(2026, 2, 9, tzinfo=UTC), datetime(2026, 3, 11, tzinfo=UTC))
    assert (query.user_id, query.model, query.group_by) == (CLIENT.user_id, "", (1, 2, 3))


async def test_thirty_days_count_back_from_the_end_that_is_given():
    assert (await ask(end=NOON)).start == NOON - timedelta(days=30)


async def test_groups_are_taken_once_and_in_any_order():
    assert (await ask(group_by=(2, 1, 2))).group_by == (1, 2)


async def test_a_leap_year_is_the_longest_range():
    start = datetime(2028, 1, 1, tzinfo=UTC)
    end = datetime(2029, 1, 1, tzinfo=UTC)
    assert (await ask(start=start, end=end)).start == start
    assert await violations(start=start, end=end + timedelta(seconds=1)) == [("start_time", "OUT_OF_RANGE")]


async def test_everything_that_is_wrong_is_said_at_once():
    assert await violations(
        ADMIN, start=NOON, end=NOON, model="\x00" * 129, user_id="me", all_users=True, group_by=(1, 0, 4)
    ) == [
        ("start_time", "OUT_OF_RANGE"),
        ("model", "TOO_LONG"),
        ("model", "MALFORMED"),
        ("user_id", "MALFORMED"),
        ("all_users", "CONFLICT"),
        ("group_by[1]", "UNKNOWN_VALUE"),
        ("group_by[2]", "UNKNOWN_VALUE"),
    ]


async def test_only_admins_may_ask_for_everybody():
    assert (await ask(ADMIN, all_users=True)).user_id == ""
    with pytest.raises(AdminOnlyError):
        await ask(all_users=True)


async def test_whom_a_client_may_ask_about_is_said_by_storage_alone():
    assert (await ask(user_id=ADMIN.user_id)).user_id == ADMIN.user_id
