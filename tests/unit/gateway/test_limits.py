import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanobatch_gateway.auth import RULES, Rule
from nanobatch_gateway.domain import LOCAL_CALLER, TooManyCallsError, TooManyWatchesError
from nanobatch_gateway.limits import CallClass, OwnLimits, SharedLimits, SlidingWindow, WatchStreams, class_of
from nanobatch_gateway.ports import Beat

ALLOWANCES = dict.fromkeys(CallClass, 100)


class Time:
    def __init__(self):
        self.seconds = 600.0

    def __call__(self):
        return self.seconds


class ScriptedCounters:
    """Redis as it is told to be."""

    def __init__(self, *, answer: float | None = 0.0):
        self.answer = answer
        self.asked = 0

    async def take(self, key, allowance):
        self.asked += 1
        return self.answer

    async def beat(self):
        return None


async def admitted(limits, calls, call_class=CallClass.SPEND) -> int:
    """Return how many of so many calls were let through."""
    through = 0
    for _ in range(calls):
        try:
            await limits.admit(LOCAL_CALLER, call_class)
        except TooManyCallsError:
            continue
        through += 1
    return through


@given(st.lists(st.tuples(st.integers(1, 30_000), st.integers(1, 80)), min_size=1, max_size=60))
def test_in_no_minute_is_more_let_through_than_the_allowance(comings):
    """Whenever somebody comes, and however many times at once."""
    time, through = Time(), []
    window = SlidingWindow(time)
    for milliseconds, calls in comings:
        time.seconds += milliseconds / 1_000
        through += [time.seconds for _ in range(calls) if window.take("a", 100) == 0]
    assert all(at - through[n - 100] > 60 for n, at in enumerate(through) if n >= 100)


def test_who_comes_at_the_very_end_of_the_wait_is_not_told_to_come_at_once():
    time = Time()
    window = SlidingWindow(time)
    while not window.take("a", 100):
        pass
    time.seconds += 60.9999
    assert window.take("a", 100) == pytest.approx(0.001)


def test_users_are_counted_apart_and_all_is_forgotten_after_a_minute_and_a_second():
    time = Time()
    window = SlidingWindow(time)
    assert sum(window.take("a", 100) == 0 for _ in range(200)) == 100
    assert window.take("b", 100) == 0
    time.seconds += 61
    assert sum(window.take("a", 100) == 0 for _ in range(200)) == 100


@pytest.mark.parametrize("into_window", [0.0, 7.0, 31.0, 59.0])
@pytest.mark.parametrize("before", [0, 40, 100])
def test_who_comes_again_after_the_time_that_was_said_is_let_in_and_not_much_sooner(into_window, before):
    time = Time()
    window = SlidingWindow(time)
    for _ in range(before):
        window.take("a", 100)
    time.seconds += 60 + into_window
    while not (wait := window.take("a", 100)):
        pass
    time.seconds += wait * 0.9
    assert window.take("a", 100) > 0
    time.seconds += wait * 0.1 + 0.01
    assert window.take("a", 100) == 0


def test_what_is_counted_for_users_who_have_gone_is_forgotten():
    time = Time()
    window = SlidingWindow(time)
    for user in range(20_000):
        window.take(f"spend:{user}", 100)
    time.seconds += 180
    window.take("spend:new", 100)
    assert len(window._recent) == 1


def test_every_method_that_a_user_may_call_has_a_class_and_only_watches_are_watches():
    methods = [method for method, rule in RULES.items() if rule is not Rule.OPEN]
    assert {method for method in methods if class_of(method) is CallClass.WATCH} == {
        "/nanobatch.gateway.v1.ExecutionService/WatchExecution"
    }
    spending = {"CreateExecution", "RetryExecution", "ResumeExecution", "CheckApiKey"}
    assert spending <= {m.rpartition("/")[2] for m in methods if class_of(m) is CallClass.SPEND}
    assert class_of("/x/CancelExecution") is class_of("/x/UploadImage") is CallClass.WRITE
    assert class_of("/x/GetExecution") is class_of("/x/ListResults") is CallClass.READ


async def test_classes_are_counted_apart_and_zero_is_no_limit():
    limits = OwnLimits({**ALLOWANCES, CallClass.READ: 0}, now=Time())
    assert await admitted(limits, 150) == 100
    assert await admitted(limits, 150, CallClass.WATCH) == 100
    assert await admitted(limits, 1_000, CallClass.READ) == 1_000


async def test_a_refusal_says_when_to_come_again():
    limits = OwnLimits(ALLOWANCES, now=Time())
    await admitted(limits, 100)
    with pytest.raises(TooManyCallsError) as refused:
        await limits.admit(LOCAL_CALLER, CallClass.SPEND)
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after.total_seconds() <= 61
    assert refused.value.metadata == {"class": "spend", "limit": "100"}


@pytest.mark.parametrize("gateways", [1, 2, 3, 4, 10])
async def test_even_where_one_gateway_had_let_all_through_the_others_shares_stay_within_one_and_a_half(gateways):
    time = Time()
    fleet = [SharedLimits(ALLOWANCES, ScriptedCounters(), now=time) for _ in range(gateways)]
    for limits in fleet:
        limits.heard(Beat(gateways, "1"))
    through = await admitted(fleet[0], 100)
    assert through == 100
    for limits in fleet:
        limits.heard(None)
    through += sum([await admitted(limits, 1_000) for limits in fleet])
    assert through <= 150
    time.seconds += 120
    later = sum([await admitted(limits, 1_000) for limits in fleet])
    assert 50 <= later <= 100  # neither open nor shut for as long as it lasts


async def test_redis_that_was_never_met_leaves_a_share_as_if_there_were_some_gateways():
    assert 1 <= await admitted(SharedLimits(ALLOWANCES, ScriptedCounters(), now=Time()), 1_000) <= 25


async def test_one_late_answer_is_enough_and_nobody_waits_for_the_next_until_redis_was_heard_again():
    counters = ScriptedCounters(answer=None)
    limits = SharedLimits(ALLOWANCES, counters, now=Time())
    limits.heard(Beat(1, "1"))
    await admitted(limits, 50)
    assert counters.asked == 1
    limits.heard(Beat(1, "1"))
    await admitted(limits, 1)
    assert counters.asked == 2


@pytest.mark.parametrize("returned", ["emptied", "after an outage", "emptied while nobody looked", "late once"])
async def test_counters_that_may_have_forgotten_are_believed_only_after_a_minute(returned):
    """Nor do they know of what was let through between a late answer and the next beat."""
    time, counters = Time(), ScriptedCounters()
    limits = SharedLimits(ALLOWANCES, counters, now=time)
    limits.heard(Beat(2, "1"))
    assert await admitted(limits, 100) == 100
    if returned == "after an outage":
        limits.heard(None)
        limits.heard(Beat(2, "1"))
    elif returned == "emptied":
        limits.heard(Beat(2, "2"))
    elif returned == "late once":
        counters.answer = None
        await admitted(limits, 1)
        counters.answer = 0.0
        limits.heard(Beat(2, "1"))
    else:
        limits.heard(None)
        limits.heard(Beat(1, "2"))  # the other gateway has not beaten yet: its share is still its own
        assert limits.share(100) == 50
    assert await admitted(limits, 100) == 0
    time.seconds += 130
    limits.heard(Beat(2, "2"))
    time.seconds += 61
    assert await admitted(limits, 100) == 100


def test_watches_of_a_user_are_bounded_and_an_ended_one_makes_room():
    streams = WatchStreams(2)
    with streams.one_of(LOCAL_CALLER):
        with streams.one_of(LOCAL_CALLER), pytest.raises(TooManyWatchesError), streams.one_of(LOCAL_CALLER):
            pass
        with streams.one_of(LOCAL_CALLER):
            pass
    assert not streams._open
