import heapq
from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from nanobatch_storage.fairness import Candidate, Turns, share

START = datetime(2026, 1, 1, tzinfo=UTC)


def candidate(
    execution: str,
    user: str,
    *,
    in_flight: int = 0,
    ready: int = 100,
    bucket: str | None = None,
    age: int = 0,
    lost: int = 0,
):
    return Candidate(execution, user, bucket or execution, in_flight, ready, START + timedelta(seconds=age), lost)


def deal(candidates, slots, *, user_in_flight=None, room=None, turns=None):
    room = {c.bucket_id: 1000 for c in candidates} if room is None else room
    return share(candidates, slots=slots, user_in_flight=user_in_flight or Counter(), room=room, turns=turns or Turns())


def test_one_users_hundred_prompts_do_not_make_anothers_single_prompt_wait():
    dealt = deal([candidate("big", "a", ready=100), candidate("small", "b", ready=1, age=9)], 10)
    assert dealt == {"big": 9, "small": 1}


def test_a_user_with_calls_in_flight_waits_for_one_with_none():
    dealt = deal([candidate("x", "a", in_flight=10), candidate("y", "b", age=5)], 3, user_in_flight={"a": 10})
    assert dealt == {"y": 3}


def test_two_executions_of_one_user_share_evenly_and_the_older_one_is_first():
    dealt = deal([candidate("new", "a", age=5), candidate("old", "a")], 5)
    assert dealt == {"old": 3, "new": 2}


def test_what_was_begun_and_lost_goes_before_what_a_user_has_not_begun_but_not_before_another_user():
    mine = [candidate("idle", "a"), candidate("hit", "a", in_flight=9, lost=2, age=5)]
    assert deal(mine, 4) == {"hit": 2, "idle": 2}
    assert deal([*mine, candidate("other", "b", age=9)], 2) == {"hit": 1, "other": 1}


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
    dealt = deal(candidates, slots, room={"one": room})
    assert sum(dealt.values()) == min(slots, room, sum(ready))
    assert all(dealt.get(c.execution_id, 0) <= c.ready for c in candidates)


@given(slots=st.integers(1, 30))
def test_equal_users_differ_by_one_slot_at_most(slots):
    candidates = [candidate(f"e{i}", f"u{i}", age=i) for i in range(7)]
    counts = [deal(candidates, slots).get(c.execution_id, 0) for c in candidates]
    assert max(counts) - min(counts) <= 1


def jain(counts):
    """Jain's fairness index: 1 where all have the same, 1/n where one has everything."""
    return sum(counts) ** 2 / (len(counts) * sum(count * count for count in counts))


def serve(executions, *, slots, calls, duration=lambda _user: 1):
    """Play a queue in which slots free one by one; returns calls begun per user, and the longest wait for a turn."""
    turns, begun, in_flight, out = Turns(), Counter(), Counter(), []
    last, longest, now = dict.fromkeys((user for _, user in executions), 0.0), 0.0, 0.0
    for number in range(calls):
        if len(out) == slots:
            now, _, execution, user = heapq.heappop(out)
            in_flight[execution] -= 1
            in_flight[user] -= 1
        waiting = [
            candidate(execution, user, in_flight=in_flight[execution], age=age)
            for age, (execution, user) in enumerate(executions)
        ]
        (chosen,) = deal(waiting, 1, user_in_flight=Counter({u: in_flight[u] for u in last}), turns=turns)
        user = dict(executions)[chosen]
        begun[user] += 1
        in_flight[chosen] += 1
        in_flight[user] += 1
        longest, last[user] = max(longest, now - last[user]), now
        heapq.heappush(out, (now + duration(user), number, chosen, user))
    return begun, max(longest, *(now - at for at in last.values()))


def test_fifty_equal_users_over_ten_slots_are_served_equally_and_nobody_waits_longer_than_a_round():
    users = [(f"e{number}", f"u{number}") for number in range(50)]
    begun, longest = serve(users, slots=10, calls=500)
    assert jain([begun[user] for _, user in users]) >= 0.99
    assert longest <= 50 / 10 + 1


def test_one_whose_calls_are_slow_takes_no_more_than_its_place():
    users = [(f"e{number}", f"u{number}") for number in range(50)]
    begun, longest = serve(users, slots=10, calls=500, duration=lambda user: 10 if user == "u0" else 1)
    assert jain([begun[user] for _, user in users[1:]]) >= 0.99
    assert longest <= 10 + 50 / 9


def test_a_hundred_executions_of_one_user_do_not_outweigh_anothers_one():
    flood = [(f"a{number}", "a") for number in range(100)]
    begun, _ = serve([*flood, ("e", "b")], slots=3, calls=300)
    assert abs(begun["a"] - begun["b"]) <= 3
    begun, _ = serve([*flood, *((f"e{n}", f"u{n}") for n in range(9))], slots=4, calls=500)
    assert jain(list(begun.values())) >= 0.99


def test_single_prompts_that_keep_coming_do_not_hold_up_a_list():
    turns = Turns()
    served = []
    for second in range(40):
        newcomer = candidate(f"single{second}", "a", ready=1, bucket="one", age=1 + second)
        dealt = deal([candidate("list", "a", bucket="one"), newcomer], 1, room={"one": 1}, turns=turns)
        served += dealt
    assert served.count("list") >= 19
