from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanobatch_client import Execution, ExecutionState, PauseReason, Stats, Violation
from nanobatch_client.cli import wording


@pytest.mark.parametrize(
    ("micros", "shown"),
    [
        (0, "$0.00"),
        (39_000, "$0.039"),
        (1_500_000, "$1.50"),
        (1, "$0.000001"),
        (12_000_000, "$12.00"),
        (-5, "-$0.000005"),
    ],
)
def test_money_is_not_rounded(micros: int, shown: str) -> None:
    assert wording.money(micros) == shown


@given(st.integers(0, 10**12))
def test_money_can_be_read_back(micros: int) -> None:
    whole, _, rest = wording.money(micros).removeprefix("$").partition(".")
    assert int(whole) * 1_000_000 + int(rest.ljust(6, "0")) == micros
    assert len(rest) >= 2


def test_durations_are_short() -> None:
    assert wording.duration(timedelta(seconds=4.6)) == "5 s"
    assert wording.duration(timedelta(seconds=185)) == "3 min 05 s"
    assert wording.duration(timedelta(hours=2, minutes=10)) == "2 h 10 min"
    assert wording.duration(timedelta(seconds=-3)) == "0 s"


@pytest.mark.parametrize("path", ["prompts[1].text", "execution.prompts[1]", "prompts_text[1]"])
def test_a_violation_names_the_prompt_by_number_and_first_words(path: str) -> None:
    bad = Violation(path, "It is too long.")
    assert wording.violation(bad, ["a", "b c"]) == 'prompt 2 "b c": It is too long.'
    assert wording.violation(bad, ["a"]) == "prompt 2: It is too long."


def test_a_prompt_of_a_pasted_text_is_named_by_its_words_too() -> None:
    bad = Violation("prompts_text", "Prompt 2 has 10,001 characters.")
    assert wording.violation(bad, ["a", "b c"]) == 'prompt 2 "b c" has 10,001 characters.'
    assert wording.violation(bad) == "prompt 2 has 10,001 characters."


def test_other_violations_name_their_field() -> None:
    assert wording.violation(Violation("output.aspect_ratio", "Not 7:1.")) == "output.aspect_ratio: Not 7:1."
    assert wording.violation(Violation("", "All is wrong.")) == "All is wrong."


def paused(reason: PauseReason, **more: object) -> Execution:
    return Execution("ID", ExecutionState.PAUSED, "m", pause_reason=reason, **more)


def test_each_pause_says_what_to_type_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NANOBATCH_GATEWAY_TARGET", raising=False)
    usual = wording.DEFAULT_TARGET
    assert "`nanobatch resume ID --api-key-env GEMINI_API_KEY`" in wording.pause_advice(
        paused(PauseReason.INVALID_KEY), usual
    )
    stats = Stats(total=40, completed=3, pending=37)
    capped = wording.pause_advice(paused(PauseReason.SPEND_CAP, max_cost_micros=2_000_000, stats=stats), usual)
    assert "spend cap of $2.00 reached, 37 left" in capped
    assert "`nanobatch resume ID --max-cost DOLLARS`" in capped
    quota = paused(PauseReason.DAILY_QUOTA, resume_time=datetime(2026, 1, 1, tzinfo=UTC))
    assert "by itself at" in wording.pause_advice(quota, usual)
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    daily = wording.pause_advice(paused(PauseReason.DAILY_SPEND_CAP, resume_time=midnight, stats=stats), usual)
    assert "reached, 37 left. It goes on by itself at" in daily
    elsewhere = wording.pause_advice(paused(PauseReason.USER), "other:1")
    assert "`nanobatch resume ID --target other:1`" in elsewhere


def test_counts_leave_out_what_is_not_there() -> None:
    assert wording.counts(Stats(total=3, completed=3, total_cost_micros=1_000_000)) == "3 done, $1.00"
    mixed = Stats(total=5, completed=1, failed=1, cancelled=1, pending=1, processing=1, uncertain_cost_micros=10_000)
    assert wording.counts(mixed) == "1 done, 1 failed, 1 cancelled, 2 left, $0.00 (and perhaps $0.01 more)"
