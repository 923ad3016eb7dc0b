"""Commands about runs that exist: list, watch, results, cancel, pause, resume, retry, delete."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import nanobatch_client as sdk
from nanobatch_client.cli import documents, exits, names, wording
from nanobatch_client.cli.exits import ExitCode
from nanobatch_client.cli.follow import follow, report
from nanobatch_client.cli.output import Terminal
from nanobatch_client.cli.session import (
    ExecutionId,
    Json,
    KeyVariable,
    MaxCost,
    Quiet,
    Session,
    Target,
    key_from,
    micros,
)


def list_(
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most this many.")] = 20,
    as_json: Json = False,
    quiet: Quiet = False,
    target: Target = wording.DEFAULT_TARGET,
) -> None:
    """List runs, newest first: id, state, pictures, model, cost, time."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))

    async def work(client: sdk.Client) -> ExitCode:
        found: list[sdk.Execution] = []
        async for execution in client.list_executions():
            found.append(execution)
            if len(found) == limit:
                break
        if as_json:
            session.terminal.document({"executions": found})
            return ExitCode.OK
        for execution in found:
            stats = execution.stats
            done = f"{stats.completed}/{stats.total}"
            created = wording.clock(execution.create_time) if execution.create_time else ""
            columns = (execution.id, execution.state.value, done, execution.model, wording.cost(stats), created)
            session.terminal.data("\t".join(columns))
        return ExitCode.OK

    session.run(work)


def watch(
    execution_id: ExecutionId,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON line per event to stdout.")] = False,
    quiet: Quiet = False,
    target: Target = wording.DEFAULT_TARGET,
) -> None:
    """Watch a run until it ends. Ctrl-C stops watching, not the run."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json, json_lines=True))
    session.on_interrupt = [f"Left; the run goes on. Come back: {wording.command('watch', execution_id, target)}"]

    async def work(client: sdk.Client) -> ExitCode:
        execution = await client.get_execution(execution_id)

        def event(update: sdk.Update) -> None:
            session.terminal.document(documents.of_update(update))

        outcome = await follow(session, client, execution, folder=None, on_update=event if as_json else None)
        return report(session, outcome, None)

    session.run(work)


def results(
    execution_id: ExecutionId, *, as_json: Json = False, quiet: Quiet = False, target: Target = wording.DEFAULT_TARGET
) -> None:
    """List the results of a run: prompt number, variation, state, attempts, cost, picture's id or what went wrong."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))

    async def work(client: sdk.Client) -> ExitCode:
        execution = await client.get_execution(execution_id)
        rows = [result async for result in client.list_results(execution_id)]
        if as_json:
            session.terminal.document({"execution": execution, "stats": execution.stats, "results": rows})
            return ExitCode.OK
        for row in rows:
            last = row.image_id or (wording.failure(row) if row.error else "")
            figures = (str(row.batch_index + 1), str(row.variation + 1), row.state.value, str(row.attempts))
            name = names.slug(row.prompt_text)
            session.terminal.data("\t".join((*figures, wording.money(row.cost_micros), name, last)))
        session.terminal.note(f"{execution.state.value.lower()}: {wording.counts(execution.stats)}")
        return ExitCode.OK

    session.run(work)


def cancel(
    execution_id: ExecutionId, *, as_json: Json = False, quiet: Quiet = False, target: Target = wording.DEFAULT_TARGET
) -> None:
    """Cancel what has not been sent to the provider yet; what is out runs to its end and is kept."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))

    async def work(client: sdk.Client) -> ExitCode:
        cancellation = await client.cancel_execution(execution_id)
        if as_json:
            session.terminal.document(cancellation)
        if cancellation.in_flight:
            most = wording.money(cancellation.maybe_charged_micros)
            session.terminal.note(
                f"{wording.many(cancellation.in_flight, 'call')} still out; they may cost up to {most}."
            )
        execution = cancellation.execution
        session.terminal.note(f"{execution.state.value.lower()}: {wording.counts(execution.stats)}")
        return ExitCode.OK

    session.run(work)


def pause(
    execution_id: ExecutionId, *, as_json: Json = False, quiet: Quiet = False, target: Target = wording.DEFAULT_TARGET
) -> None:
    """Start no further calls until the run is resumed."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))

    async def work(client: sdk.Client) -> ExitCode:
        execution = await client.pause_execution(execution_id)
        if as_json:
            session.terminal.document(documents.of_execution(execution))
        session.terminal.note(f"Paused. Go on: `{wording.command('resume', execution_id, target)}`")
        return ExitCode.OK

    session.run(work)


def resume(
    execution_id: ExecutionId,
    *,
    api_key_env: KeyVariable = None,
    max_cost: MaxCost = None,
    as_json: Json = False,
    quiet: Quiet = False,
    target: Target = wording.DEFAULT_TARGET,
) -> None:
    """Go on after a pause, with another key or a higher spend cap where given."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))
    key, cap = key_from(api_key_env), micros(max_cost)

    async def work(client: sdk.Client) -> ExitCode:
        execution = await client.resume_execution(execution_id, api_key=key, max_cost_micros=cap)
        if as_json:
            session.terminal.document(documents.of_execution(execution))
        session.terminal.note(f"Resumed. Watch it: `{wording.command('watch', execution_id, target)}`")
        return exits.of_run(execution)

    session.run(work)


def retry(
    execution_id: ExecutionId,
    *,
    api_key_env: KeyVariable = None,
    as_json: Json = False,
    quiet: Quiet = False,
    target: Target = wording.DEFAULT_TARGET,
) -> None:
    """Try all failed results of a run again; nothing that succeeded is touched."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))
    key = key_from(api_key_env)

    async def work(client: sdk.Client) -> ExitCode:
        again = await client.retry_execution(execution_id, api_key=key)
        if as_json:
            session.terminal.document(again)
        command = wording.command("watch", execution_id, target)
        session.terminal.note(f"{wording.many(again.retried, 'result')} to be tried again. Watch: `{command}`")
        return ExitCode.OK

    session.run(work)


def delete(
    execution_id: ExecutionId,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    quiet: Quiet = False,
    target: Target = wording.DEFAULT_TARGET,
) -> None:
    """Delete a run that has ended, with its results and pictures. What it cost stays on record."""
    if not yes and sys.stdin.isatty() and not typer.confirm("Delete its results and pictures for good?", err=True):
        raise typer.Exit(int(ExitCode.ERROR))
    session = Session(target, Terminal(quiet=quiet))

    async def work(client: sdk.Client) -> ExitCode:
        await client.delete_execution(execution_id)
        session.terminal.note("Deleted.")
        return ExitCode.OK

    session.run(work)
