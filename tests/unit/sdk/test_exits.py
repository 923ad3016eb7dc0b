from __future__ import annotations

import pytest

from nanobatch_client import Execution, ExecutionState, NanobatchError, PauseReason, Stats, UnreachableError, Violation
from nanobatch_client.cli.exits import ExitCode, of_error, of_run
from nanobatch_client.errors import BY_CODE

S, P = ExecutionState, PauseReason

BY_STATUS = {
    "INVALID_ARGUMENT": 2,
    "OUT_OF_RANGE": 2,
    "NOT_FOUND": 1,
    "ALREADY_EXISTS": 1,
    "ABORTED": 1,
    "FAILED_PRECONDITION": 1,
    "RESOURCE_EXHAUSTED": 1,
    "UNAUTHENTICATED": 4,
    "PERMISSION_DENIED": 4,
    "UNAVAILABLE": 1,
    "DEADLINE_EXCEEDED": 1,
    "UNIMPLEMENTED": 1,
    "CANCELLED": 1,
    "DATA_LOSS": 1,
    "INTERNAL": 1,
}


@pytest.mark.parametrize("code", BY_CODE)
def test_each_error_has_its_exit_code(code: str) -> None:
    assert of_error(BY_CODE[code]("x")) == BY_STATUS[code]


def test_errors_outside_of_the_table() -> None:
    assert of_error(NanobatchError("x")) == ExitCode.ERROR
    assert of_error(UnreachableError("x")) == ExitCode.ERROR
    assert of_error(BY_CODE["FAILED_PRECONDITION"]("x", reason="KEY_NEEDED")) == ExitCode.KEY


def test_a_request_wrong_in_its_key_alone_is_a_matter_of_keys() -> None:
    key, other = Violation("execution.api_key", "is missing"), Violation("model", "unknown")
    assert of_error(BY_CODE["INVALID_ARGUMENT"]("x", violations=[key])) == ExitCode.KEY
    assert of_error(BY_CODE["INVALID_ARGUMENT"]("x", violations=[key, other])) == ExitCode.USAGE


@pytest.mark.parametrize(
    ("state", "reason", "stats", "code"),
    [
        (S.COMPLETED, P.UNSPECIFIED, Stats(total=2, completed=2), 0),
        (S.COMPLETED, P.UNSPECIFIED, Stats(total=2, completed=1, failed=1), 3),
        (S.FAILED, P.UNSPECIFIED, Stats(total=2, failed=2), 3),
        (S.CANCELLED, P.UNSPECIFIED, Stats(total=2, completed=1, cancelled=1), 3),
        (S.PROCESSING, P.UNSPECIFIED, Stats(total=2, processing=1, failed=1), 0),
        (S.PAUSED, P.INVALID_KEY, Stats(total=2, pending=2), 4),
        (S.PAUSED, P.SPEND_CAP, Stats(total=2, pending=1, failed=1), 5),
        (S.PAUSED, P.DAILY_SPEND_CAP, Stats(total=2, pending=2), 5),
        (S.PAUSED, P.DAILY_QUOTA, Stats(total=2, pending=2), 5),
        (S.PAUSED, P.MODEL_GONE, Stats(total=2, pending=2), 5),
        (S.PAUSED, P.USER, Stats(total=2, pending=2), 0),
    ],
)
def test_each_end_of_a_run_has_its_exit_code(
    state: ExecutionState, reason: PauseReason, stats: Stats, code: int
) -> None:
    assert of_run(Execution("e", state, "m", stats=stats, pause_reason=reason)) == code


def test_the_numbers_are_the_documented_ones() -> None:
    assert {each.name: int(each) for each in ExitCode} == {
        "OK": 0,
        "ERROR": 1,
        "USAGE": 2,
        "SOME_FAILED": 3,
        "KEY": 4,
        "PAUSED": 5,
        "INTERRUPTED": 130,
    }
