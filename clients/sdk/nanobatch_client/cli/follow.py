"""Staying with a run: watch, fetch pictures meanwhile, take stock at the end."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nanobatch_client.cli import exits, wording
from nanobatch_client.cli.display import Display, choose_display
from nanobatch_client.cli.exits import ExitCode
from nanobatch_client.cli.folder import PictureFolder
from nanobatch_client.cli.view import RunView
from nanobatch_client.models import Execution, ExecutionState, Result, ResultUpdate, Update

if TYPE_CHECKING:
    from nanobatch_client.cli.session import Session
    from nanobatch_client.client import Client


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a run stands after we left it."""

    execution: Execution
    results: list[Result]
    files: dict[str, str] = field(default_factory=dict)
    """Names of pictures by result id."""
    problems: list[str] = field(default_factory=list)
    """Pictures that could not be saved, and why."""
    manifest: Path | None = None

    @property
    def exit_code(self) -> ExitCode:
        """What the command ends with."""
        return ExitCode.ERROR if self.problems else exits.of_run(self.execution)


async def follow(
    session: Session,
    client: Client,
    execution: Execution,
    *,
    folder: Path | None,
    on_update: Callable[[Update], None] | None = None,
) -> Outcome:
    """Stay with a run until it has ended or stands still, and bring its pictures to ``folder``."""
    view = RunView(execution)
    async with _equipped(session, client, folder) as (display, pictures):
        try:
            async with aclosing(client.watch(execution.id)) as updates:
                async for update in updates:
                    view.apply(update, datetime.now(UTC))
                    display.show(view, update)
                    if on_update:
                        on_update(update)
                    if pictures and isinstance(update, ResultUpdate):
                        pictures.offer(update.result)
                    if view.stands_still:
                        break
            return await _take_stock(client, execution.id, pictures)
        except BaseException:
            # Ctrl-C or a lost server: what is here already gets its manifest all the same.
            if pictures:
                pictures.write_manifest(view.execution, view.ordered)
            raise


async def fetch(session: Session, client: Client, execution: Execution, folder: Path) -> Outcome:
    """Bring the pictures that are there now, without waiting for more."""
    async with _equipped(session, client, folder) as (_, pictures):
        return await _take_stock(client, execution.id, pictures)


@asynccontextmanager
async def _equipped(
    session: Session, client: Client, folder: Path | None
) -> AsyncGenerator[tuple[Display, PictureFolder | None], None]:
    """Give a display and, where there is a folder, what fills it; paths of pictures go to stdout."""
    terminal = session.terminal
    # A terminal that is being redrawn cannot take lines in between: there the paths come at the end.
    at_once = not (terminal.is_live and sys.stdout.isatty())
    late: list[Path] = []

    def saved(path: Path) -> None:
        if terminal.as_json:
            return
        if at_once:
            terminal.data(str(path))
        else:
            late.append(path)

    try:
        with choose_display(terminal) as display:
            if folder is None:
                yield display, None
            else:
                async with PictureFolder(folder, client, note=display.note, saved=saved) as pictures:
                    yield display, pictures
    finally:
        for path in late:
            terminal.data(str(path))


async def _take_stock(client: Client, execution_id: str, pictures: PictureFolder | None) -> Outcome:
    execution = await client.get_execution(execution_id)
    results = [result async for result in client.list_results(execution_id)]
    if pictures is None:
        return Outcome(execution, results)
    await pictures.settle(results)
    path = pictures.write_manifest(execution, results)
    return Outcome(execution, results, pictures.files, list(pictures.problems.values()), path)


def report(session: Session, outcome: Outcome, folder: Path | None) -> ExitCode:
    """Say how it ended and what to type next; return the exit code."""
    execution, terminal = outcome.execution, session.terminal

    def type_this(name: str, *rest: str) -> str:
        return f"`{wording.command(name, execution.id, session.target, *rest)}`"

    where = f", in {folder}" if folder else ""
    terminal.note(f"{execution.state.value.lower()}: {wording.counts(execution.stats)}{where}")
    terminal.error(*outcome.problems)
    if execution.state is ExecutionState.PAUSED:
        terminal.error(wording.pause_advice(execution, session.target))
    elif execution.stats.failed and execution.state.is_final:
        terminal.note(f"{execution.stats.failed} failed. Try them again: {type_this('retry')}")
    elif not execution.state.is_final:
        terminal.note(f"{execution.stats.left} still to come: {type_this('watch')}")
    if outcome.problems and folder:
        terminal.note(f"Fetch what is missing: {type_this('download', '-o', str(folder))}")
    return outcome.exit_code
