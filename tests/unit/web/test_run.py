import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from nanobatch_client import (
    Execution,
    ExecutionState,
    ExecutionUpdate,
    Progress,
    ProgressUpdate,
    Result,
    ResultState,
    ResultUpdate,
    Stats,
)
from nanobatch_web.live.run import Run

STATS = Stats(total=2, pending=2)
EXECUTION = Execution("E", ExecutionState.PROCESSING, "sandbox")


def result(number: int, state: ResultState = ResultState.PENDING, **more: object) -> Result:
    return Result(f"R{number}", "E", number, 0, f"prompt {number}", state, **more)


def a_run() -> Run:
    run = Run("one")
    run.apply(ExecutionUpdate(1, STATS, EXECUTION))
    run.apply(ResultUpdate(2, STATS, result(0)))
    run.apply(ResultUpdate(3, STATS, result(1)))
    return run


def ask(run: Run, since: int = -1, epoch: str = "one") -> dict:
    return json.loads(run.delta(since, epoch))


def test_who_comes_first_gets_everything_in_the_order_of_the_prompts() -> None:
    run = a_run()
    run.apply(ResultUpdate(4, STATS, result(0, ResultState.PROCESSING)))
    seen = ask(run)
    assert seen["execution"]["state"] == "PROCESSING"
    assert [row["index"] for row in seen["results"]] == [0, 1]
    assert run.is_whole


def test_who_comes_again_gets_what_is_newer_and_nothing_else() -> None:
    run = a_run()
    version = ask(run)["version"]
    assert ask(run, version)["results"] == []
    run.apply(ResultUpdate(4, replace(STATS, pending=1, completed=1), result(1, ResultState.COMPLETED)))
    newer = ask(run, version)
    assert [row["id"] for row in newer["results"]] == ["R1"]
    assert newer["stats"]["completed"] == 1
    assert "execution" not in newer


def test_a_browser_of_another_copy_gets_everything_anew() -> None:
    run = a_run()
    assert len(ask(run, 3, "another")["results"]) == 2
    assert len(ask(run, 1_000)["results"]) == 2


def test_new_addresses_of_pictures_are_told_and_nothing_else_is_taken_from_another_look() -> None:
    run = a_run()
    before = ask(run)["version"]
    same, later = result(0), result(1, ResultState.COMPLETED, revision=9)
    run.renew([same, later])
    assert ask(run)["version"] == before
    run.renew(replace(each, thumbnail_url="anew") for each in (same, later, result(7)))
    assert [(row["id"], row["thumb"], row["state"]) for row in ask(run, before)["results"]] == [
        ("R0", "anew", "PENDING")
    ]
    assert [row["id"] for row in ask(run)["results"]] == ["R0", "R1"]


def test_an_estimate_goes_when_its_result_changes() -> None:
    run = a_run()
    run.apply(ProgressUpdate(STATS, Progress("R0", 40)))
    assert ask(run)["progress"] == [{"id": "R0", "percent": 40, "eta": None, "waiting": None}]
    run.apply(ResultUpdate(4, STATS, result(0, ResultState.COMPLETED)))
    assert ask(run)["progress"] == []


def test_the_watch_goes_on_from_the_highest_revision() -> None:
    run = a_run()
    run.apply(ProgressUpdate(STATS, Progress("R0", 40)))
    assert run.revision == 3


def test_trouble_is_told_once_and_taken_back() -> None:
    run = a_run()
    before = ask(run)["version"]
    run.set_trouble("No server.")
    run.set_trouble("No server.")
    assert ask(run, before)["trouble"] == "No server."
    assert ask(run)["version"] == before + 1
    run.set_trouble("")
    assert not ask(run)["trouble"]


def test_the_time_to_go_is_told_once_there_is_something_to_tell_it_from() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    run = Run("one", lambda: now)
    stats = Stats(total=7, pending=0, processing=6, completed=0)
    run.apply(ExecutionUpdate(1, stats, EXECUTION))
    for number in range(6):
        run.apply(ResultUpdate(2, stats, result(number, ResultState.PROCESSING)))
    assert ask(run)["eta"] is None
    now += timedelta(seconds=10)
    stats = replace(stats, processing=1, completed=5)
    for number in range(5):
        run.apply(ResultUpdate(3, stats, result(number, ResultState.COMPLETED, processing_time=timedelta(seconds=14))))
    assert ask(run)["eta"] == 4
    run.apply(
        ExecutionUpdate(
            4, replace(stats, processing=0, completed=6), replace(EXECUTION, state=ExecutionState.COMPLETED)
        )
    )
    assert ask(run)["eta"] is None
