"""What is known about a run while it is watched; pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

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
    Update,
    Waiting,
)


@dataclass(slots=True)
class RunView:
    """The replica that updates are applied to."""

    execution: Execution
    results: dict[str, Result] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    waiting: Waiting | None = None
    time_to_go: TimeToGo = field(default_factory=TimeToGo)

    def apply(self, update: Update, now: datetime) -> None:
        """Take an update in that came ``now``."""
        self.time_to_go.apply(update, now)
        match update:
            case ExecutionUpdate():
                self.execution = update.execution
            case ResultUpdate():
                self.results[update.result.id] = update.result
                if update.result.state is not ResultState.PROCESSING:
                    self.progress.pop(update.result.id, None)
                if update.result.state is ResultState.COMPLETED:
                    self.waiting = None
            case ProgressUpdate():
                if update.progress.result_id:
                    self.progress[update.progress.result_id] = update.progress
                else:
                    self.waiting = update.progress.waiting
        self.execution = replace(self.execution, stats=update.stats)

    @property
    def stands_still(self) -> bool:
        """Whether nothing more comes until a person acts: paused, and the calls that were out have ended.

        A pause that a user asked for does not count: whoever paused means to resume, and this watcher stays.
        """
        return (
            self.execution.state is ExecutionState.PAUSED
            and self.execution.pause_reason is not PauseReason.USER
            and self.execution.stats.processing == 0
        )

    @property
    def running(self) -> list[Result]:
        """Results that are being worked on, in order."""
        return [result for result in self.ordered if result.state is ResultState.PROCESSING]

    @property
    def ordered(self) -> list[Result]:
        """All results that were seen, in the order of their prompts."""
        return sorted(self.results.values(), key=lambda result: (result.batch_index, result.variation))
