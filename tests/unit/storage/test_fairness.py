from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from nanobatch_storage.fairness import Candidate, share

START = datetime(2026, 1, 1, tzinfo=UTC)


def candidate(
    execution: str, user: str, *, in_flight: int = 0, ready: int = 100, bucket: str | None = None, age: int = 0
):
    return Candidate(execution, user, bucket or execution, in_flight, ready, START + timedelta(seconds=age))


def deal(candidates, slots, *, user_in_flight=None, room=None):
    room = {c.bucket_id: 1000 for c in candidates} if room is None else room
    return share(candidates, slots=slots, user_in_flight=user_in_flight or Counter(), room=room)


def test_one_users_hundred_prompts_do_not_make_anothers_single_prompt_wait():
    dealt = deal([candidate("big", "a", ready=100), candidate("small", "b", ready=1, age=9)], 10)
    assert dealt == {"big": 9, "small": 1}


def test_a_user_with_calls_in_flight_waits_for_one_with_none():
    dealt = deal([candidate("x", "a", in_flight=10), candidate("y", "b", age=5)], 3, user_in_flight={"a": 10})
    assert dealt == {"y": 3}


def test_two_executions_of_one_user_share_evenly_and_the_older_one_is_first():
    dealt = deal([candidate("new", "a", age=5), candidate("old", "a")], 5)
    assert dealt == {"old": 3, "new": 2}


def test_a_full_bucket_gets_nothing_and_holds_nobody_back():
    room = {"full": 0, "free": 2}
    dealt = deal([candidate("x", "a", bucket="full"), candidate("y", "b", bucket="free")], 10, room=room)
    assert dealt == {"y": 2}


@given(
    ready=st.lists(st.integers(0, 8), min_size=1, max_size=8),
    users=st.lists(st.sampled_from("abc"), min_size=8, max_size=8),
    slots=st.integers(0, 20),
    room=st.integers(0, 12),
)
def test_never_more_than_slots_room_or_what_is_ready_and_never_less_than_possible(ready, users, slots, room):
    candidates = [candidate(f"e{i}", users[i], ready=n, bucket="one", age=i) for i, n in enumerate(ready)]
    dealt = share(candidates, slots=slots, user_in_flight={}, room={"one": room})
    assert sum(dealt.values()) == min(slots, room, sum(ready))
    assert all(dealt.get(c.execution_id, 0) <= c.ready for c in candidates)


@given(slots=st.integers(1, 30))
def test_equal_users_differ_by_one_slot_at_most(slots):
    candidates = [candidate(f"e{i}", f"u{i}", age=i) for i in range(7)]
    counts = [deal(candidates, slots).get(c.execution_id, 0) for c in candidates]
    assert max(counts) - min(counts) <= 1
