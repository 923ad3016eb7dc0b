from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest

from nanobatch_storage import policy
from nanobatch_storage.domain import Charged, Execution, Failure, FailureClass, Result, Settings, UnknownPolicy
from nanobatch_storage.policy import Next

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


def blank(kind, **values):
    return kind(**{field.name: values.get(field.name, 0) for field in fields(kind)})


def result() -> Result:
    return blank(Result, overloaded_since=None)


def execution(**settings) -> Execution:
    return blank(Execution, settings=Settings(**settings))


def failure(kind: FailureClass, retry_after: timedelta | None = None) -> Failure:
    return Failure(kind, "CODE", "sentence", Charged.NO, retry_after=retry_after)


def run(kind: FailureClass, times: int, **settings) -> list[Next]:
    r, e = result(), execution(**settings)
    return [policy.judge(r, e, failure(kind), NOW, chance=0.5).next for _ in range(times)]


AGAIN, FAILED = Next.AGAIN, Next.FAILED


@pytest.mark.parametrize(
    ("kind", "verdicts"),
    [
        (FailureClass.TRANSIENT, [AGAIN, AGAIN, FAILED]),
        (FailureClass.UNKNOWN, [AGAIN, FAILED]),
        (FailureClass.DAMAGED, [AGAIN, FAILED]),
        (FailureClass.EMPTY, [AGAIN, AGAIN, FAILED]),
        (FailureClass.BLOCKED, [FAILED]),
        (FailureClass.BAD_REQUEST, [FAILED]),
        (FailureClass.RATE_LIMITED, [AGAIN] * 50),
        (FailureClass.QUOTA_DAY, [AGAIN] * 50),
        (FailureClass.KEY_INVALID, [AGAIN] * 5),
        (FailureClass.KEY_UNUSABLE, [AGAIN] * 5),
        (FailureClass.MODEL_GONE, [AGAIN] * 5),
        (FailureClass.OVERLOADED, [AGAIN] * 50),
    ],
)
def test_what_follows_each_class_of_failure(kind, verdicts):
    assert run(kind, len(verdicts)) == verdicts


def test_every_class_has_a_verdict():
    for kind in FailureClass:
        assert run(kind, 1)


def test_max_attempts_counts_failures_of_all_kinds_together():
    r, e = result(), execution(max_attempts=3)
    kinds = (FailureClass.TRANSIENT, FailureClass.EMPTY, FailureClass.DAMAGED)
    assert [policy.judge(r, e, failure(kind), NOW).next for kind in kinds] == [AGAIN, AGAIN, FAILED]


def test_an_empty_answer_is_repeated_twice_at_most_however_many_attempts_are_left():
    assert run(FailureClass.EMPTY, 3, max_attempts=10) == [AGAIN, AGAIN, FAILED]


def test_an_unknown_outcome_is_final_where_the_user_wants_no_repeat():
    assert run(FailureClass.UNKNOWN, 1, on_unknown=UnknownPolicy.FAIL) == [FAILED]


def test_an_overloaded_provider_costs_attempts_only_after_a_quarter_of_an_hour():
    r, e = result(), execution(max_attempts=2)
    for minute in range(15):
        assert policy.judge(r, e, failure(FailureClass.OVERLOADED), NOW + timedelta(minutes=minute)).next is AGAIN
    assert r.failures == 0
    later = NOW + timedelta(minutes=15)
    assert [policy.judge(r, e, failure(FailureClass.OVERLOADED), later).next for _ in range(2)] == [AGAIN, FAILED]


def test_the_wait_grows_and_never_undercuts_the_providers_hint():
    r, e = result(), execution(max_attempts=9)
    waits = [policy.judge(r, e, failure(FailureClass.TRANSIENT), NOW, chance=1.0).wait for _ in range(7)]
    assert [wait.total_seconds() for wait in waits] == [2, 4, 8, 16, 32, 60, 60]
    hint = timedelta(seconds=90)
    assert policy.judge(result(), e, failure(FailureClass.TRANSIENT, hint), NOW, chance=0.0).wait == hint


def test_crashes_of_generators_prove_nothing_until_there_are_ten_and_none_counts_against_max_attempts():
    r, e = result(), execution(max_attempts=1)
    assert [policy.judge_crash(r, e).next for _ in range(10)] == [AGAIN] * 9 + [FAILED]
    assert r.failures == 0


def test_the_third_crash_is_final_where_the_call_was_alone():
    r, e = result(), execution(max_attempts=9)
    assert [policy.judge_crash(r, e).next for _ in range(2)] == [AGAIN, AGAIN]
    assert policy.is_suspect(r)
    verdict = policy.judge(r, e, failure(FailureClass.WORKER_LOST), NOW)
    assert (verdict.next, verdict.retryable, r.crashes, r.failures) == (FAILED, True, 3, 0)


def test_a_crash_is_an_unknown_outcome_too_where_the_user_wants_no_repeat():
    assert policy.judge_crash(result(), execution(on_unknown=UnknownPolicy.FAIL)).next is FAILED
