"""Showing a run to a person, on stderr: plain lines here, the redrawn display in :mod:`nanobatch_client.cli.live`."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from nanobatch_client.cli import names, wording
from nanobatch_client.cli.output import Terminal
from nanobatch_client.cli.view import RunView
from nanobatch_client.models import (
    ExecutionState,
    ExecutionUpdate,
    PauseReason,
    Result,
    ResultState,
    ResultUpdate,
    Update,
    WaitReason,
)


class Display(Protocol):
    """What a person sees of a run while it goes on."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; what was drawn stays readable."""
        ...

    def show(self, view: RunView, update: Update) -> None:
        """Show what an update has changed; ``view`` has it already."""
        ...

    def note(self, text: str) -> None:
        """Say something besides."""
        ...


class Endings:
    """Tells a result that has just ended from one that is only told again."""

    def __init__(self) -> None:
        """Nothing has ended yet."""
        self._states: dict[str, ResultState] = {}

    def are_new(self, result: Result) -> bool:
        """Whether this is news: a final row changes once more when the cost of its last call comes in."""
        before = self._states.get(result.id)
        self._states[result.id] = result.state
        return result.state.is_final and result.state is not before


class PlainDisplay:
    """A line for every result that ends, and for every new reason to wait. No control codes."""

    def __init__(self, terminal: Terminal) -> None:
        """``terminal`` decides whether notes are shown at all."""
        self._terminal = terminal
        self._wait: WaitReason | None = None
        self._endings = Endings()

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to undo."""

    def show(self, view: RunView, update: Update) -> None:
        """Write a line where there is something to say."""
        stats = view.execution.stats
        if isinstance(update, ResultUpdate) and self._endings.are_new(update.result):
            self.note(f"[{stats.total - stats.left}/{stats.total}] {ending(update.result)}")
        if isinstance(update, ExecutionUpdate) and is_paused_by_user(view):
            self.note("paused by a user; waiting until it is resumed")
        wait = view.waiting.reason if view.waiting else None
        if wait is not self._wait:
            self._wait = wait
            if view.waiting:
                self.note(wording.waiting(view.waiting))

    def note(self, text: str) -> None:
        """Write a line."""
        self._terminal.note(text)


def ending(result: Result) -> str:
    """Return what became of a result, on one line."""
    if result.state is ResultState.COMPLETED:
        took = f", {result.processing_time.total_seconds():.1f} s" if result.processing_time else ""
        return f"{names.file_name(result)} done{took}, {wording.money(result.cost_micros)}"
    number = f"{result.batch_index + 1}" + (f" v{result.variation + 1}" if result.variation else "")
    fate = wording.failure(result) if result.state is ResultState.FAILED else "cancelled"
    return f"prompt {number} {wording.first_words(result.prompt_text)} {fate}"


def is_paused_by_user(view: RunView) -> bool:
    """Whether somebody paused the run on purpose."""
    return view.execution.state is ExecutionState.PAUSED and view.execution.pause_reason is PauseReason.USER


def choose_display(terminal: Terminal) -> Display:
    """Return the redrawn display on a terminal, plain lines elsewhere."""
    if not terminal.is_live:
        return PlainDisplay(terminal)
    from nanobatch_client.cli.live import LiveDisplay  # noqa: PLC0415  # rich is loaded only where it draws

    return LiveDisplay()
