"""How long a run still takes: against runs that were played out."""

import heapq
import random
import statistics
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from nanobatch_client.eta import TimeToGo
from nanobatch_client.models import (
    Execution,
    ExecutionState,
    ExecutionUpdate,
    PauseReason,
    Progress,
    ProgressUpdate,
    Result,
    ResultState,
    ResultUpdate,
    Stats,
    Waiting,
    WaitReason,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Played:
    """A run that was: what a watcher saw, and when."""

    def __init__(self, durations: list[float], lanes: int) -> None:
        self.durations = durations
        events: list[tuple[float, int, ResultState]] = []
        free = [0.0] * lanes
        for number, duration in enumerate(durations):
            start = heapq.heappop(free)
            events += [
                (start, number, ResultState.PROCESSING),
                (start + duration, number, ResultState.COMPLETED),
            ]
            heapq.heappush(free, start + duration)
        self.events = sorted(events, key=lambda event: event[0])
        self.length = self.events[-1][0]

    def guesses(self) -> list[tuple[float, float | None, float | None]]:
        """Return time, guess and the guess of the mean pace since the start, after each event."""
        eta, counts = TimeToGo(), dict.fromkeys(ResultState, 0)
        total = len(self.durations)
        counts[ResultState.PENDING] = total

        def stats() -> Stats:
            return Stats(
                total=total,
                pending=counts[ResultState.PENDING],
                processing=counts[ResultState.PROCESSING],
                completed=counts[ResultState.COMPLETED],
            )

        eta.apply(ExecutionUpdate(1, stats(), running()), BEGIN)
        for number in range(total):
            eta.apply(ResultUpdate(1, stats(), made(number, ResultState.PENDING)), BEGIN)
        told = []
        for at, number, state in self.events:
            counts[ResultState.PENDING if state is ResultState.PROCESSING else ResultState.PROCESSING] -= 1
            counts[state] += 1
            now = BEGIN + timedelta(seconds=at)
            duration = self.durations[number] if state is ResultState.COMPLETED else None
            eta.apply(ResultUpdate(2, stats(), made(number, state, duration)), now)
            done = counts[ResultState.COMPLETED]
            guess = eta.at(now)
            told.append(
                (at, None if guess is None else guess.total_seconds(), at / done * (total - done) if done else None)
            )
        return told


def running(state: ExecutionState = ExecutionState.PROCESSING) -> Execution:
    return Execution("run", state, "model", pause_reason=PauseReason.UNSPECIFIED, start_time=BEGIN)


def made(number: int, state: ResultState, seconds: float | None = None) -> Result:
    took = None if seconds is None else timedelta(seconds=seconds)
    return Result(f"result {number}", "run", number, 0, "a prompt", state, processing_time=took)


def off(played: Played, guess: float, at: float) -> float:
    return abs(guess - (played.length - at)) / played.length


def errors(draw: Callable[[random.Random], float]) -> tuple[float, float]:
    """Return how far off the guesses were, as a share of the run's length: ours, and those of the mean pace.

    Nobody can know in a run's first third what its slow calls take.
    """
    ours, theirs = [], []
    for seed in range(20):
        dice = random.Random(seed)
        played = Played([draw(dice) for _ in range(60)], lanes=10)
        for at, guess, mean in played.guesses():
            if guess is not None and mean is not None and at > played.length / 3:
                ours.append(off(played, guess, at))
                theirs.append(off(played, mean, at))
    return statistics.mean(ours), statistics.mean(theirs)


@pytest.mark.parametrize(
    ("draw", "bound"),
    [
        (lambda dice: dice.lognormvariate(1.0, 0.3), 0.06),
        (lambda dice: dice.lognormvariate(1.0, 0.8), 0.2),
        (lambda dice: 60.0 if dice.random() < 0.1 else 5.0, 0.16),
    ],
    ids=["even", "uneven", "some twelve times as long"],
)
def test_the_end_is_guessed_better_than_by_the_mean_pace(draw: Callable[[random.Random], float], bound: float) -> None:
    ours, theirs = errors(draw)
    assert ours < theirs
    assert ours < bound


def test_equal_calls_are_guessed_within_a_tenth() -> None:
    played = Played([4.0] * 40, lanes=8)
    late = [(at, guess) for at, guess, _ in played.guesses() if guess is not None and at > 4]
    assert len(late) > 40
    assert max(off(played, guess, at) for at, guess in late) < 0.1


def test_one_call_that_outlasts_all_others_is_not_a_second_from_its_end() -> None:
    eta = TimeToGo()
    stats = Stats(total=9, processing=1, completed=8)
    eta.apply(ExecutionUpdate(1, stats, running()), BEGIN)
    for number in range(8):
        eta.apply(ResultUpdate(1, stats, made(number, ResultState.PROCESSING)), BEGIN)
        eta.apply(ResultUpdate(1, stats, made(number, ResultState.COMPLETED, 1)), BEGIN + timedelta(seconds=1))
    eta.apply(ResultUpdate(1, stats, made(8, ResultState.PROCESSING)), BEGIN)
    assert eta.at(BEGIN + timedelta(seconds=40)) == timedelta(seconds=12)


def test_a_generators_guess_counts_until_the_run_has_durations_of_its_own() -> None:
    eta = TimeToGo()
    stats = Stats(total=1, processing=1)
    eta.apply(ExecutionUpdate(1, stats, running()), BEGIN)
    eta.apply(ResultUpdate(1, stats, made(0, ResultState.PROCESSING)), BEGIN)
    assert eta.at(BEGIN) is None
    eta.apply(ProgressUpdate(stats, Progress("result 0", 10, timedelta(seconds=9))), BEGIN)
    assert eta.at(BEGIN + timedelta(seconds=2)) == timedelta(seconds=7)


def test_a_known_wait_is_waited_first_and_a_pause_has_no_end() -> None:
    eta = TimeToGo()
    stats = Stats(total=20, pending=5, completed=15)
    eta.apply(ExecutionUpdate(1, stats, running()), BEGIN)
    for number in range(15):
        at = BEGIN + timedelta(seconds=number)
        eta.apply(ResultUpdate(1, stats, made(number, ResultState.PROCESSING)), at)
        eta.apply(ResultUpdate(1, stats, made(number, ResultState.COMPLETED, 1)), at)
    now = BEGIN + timedelta(seconds=14)
    assert eta.at(now) == timedelta(seconds=5)
    waiting = Waiting(WaitReason.RATE_LIMITED, now + timedelta(minutes=1))
    eta.apply(ProgressUpdate(stats, Progress("", 0, waiting=waiting)), now)
    assert eta.at(now) == timedelta(seconds=65)
    eta.apply(ExecutionUpdate(2, stats, running(ExecutionState.PAUSED)), now)
    assert eta.at(now) is None
