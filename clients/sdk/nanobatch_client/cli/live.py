"""The display that redraws itself, on stderr: counts, money, time to go, what is being drawn, what waits and why."""

from __future__ import annotations

from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nanobatch_client.cli import wording
from nanobatch_client.cli.display import Endings, ending, is_paused_by_user
from nanobatch_client.cli.view import RunView
from nanobatch_client.models import ResultState, ResultUpdate, Update

_ROWS = 8
_FRAMES_PER_SECOND = 8


class LiveDisplay:
    """Draws with rich, which heeds NO_COLOR. stdout is left alone: data may be going there."""

    def __init__(self) -> None:
        """Draw nothing yet."""
        self._console = Console(stderr=True, highlight=False)
        self._view: RunView | None = None
        self._endings = Endings()
        self._live = Live(
            console=self._console,
            refresh_per_second=_FRAMES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=self._draw,
        )

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Draw the last state and leave it there."""
        self._live.stop()

    def show(self, view: RunView, update: Update) -> None:
        """Take the state that the next frame shows; a failure also stays as a line above."""
        self._view = view
        if not isinstance(update, ResultUpdate):
            return
        if self._endings.are_new(update.result) and update.result.state is ResultState.FAILED:
            self.note(ending(update.result))

    def note(self, text: str) -> None:
        """Write a line above what is redrawn."""
        self._console.print(Text(text))

    def _draw(self) -> RenderableType:
        view = self._view
        if view is None:
            return Text("waiting for the server ...")
        stats = view.execution.stats
        head = Table.grid(padding=(0, 1))
        eta = view.time_to_go.at(datetime.now(UTC))
        head.add_row(
            ProgressBar(total=max(stats.total, 1), completed=stats.total - stats.left, width=30),
            Text(f"{stats.completion_percentage:3} %"),
            Text(wording.counts(stats)),
            Text(f"about {wording.duration(eta)} to go" if eta and stats.left else ""),
        )
        lines: list[RenderableType] = [head]
        running = view.running
        for result in running[:_ROWS]:
            progress = view.progress.get(result.id)
            percent = f"{progress.percent:3} %" if progress else "     "
            words = wording.first_words(result.prompt_text)
            lines.append(Text(f"  {result.batch_index + 1:03} {percent} {words}", no_wrap=True, overflow="ellipsis"))
        if len(running) > _ROWS:
            lines.append(Text(f"  and {len(running) - _ROWS} more"))
        if is_paused_by_user(view):
            lines.append(Text("paused by a user; waiting until it is resumed"))
        elif view.waiting:
            lines.append(Text(wording.waiting(view.waiting)))
        return Group(*lines)
