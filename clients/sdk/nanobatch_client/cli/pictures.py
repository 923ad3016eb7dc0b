"""``nanobatch download`` and ``nanobatch export``: pictures of a run that exists, as files or as one archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import nanobatch_client as sdk
from nanobatch_client.cli import documents, wording
from nanobatch_client.cli.exits import ExitCode
from nanobatch_client.cli.folder import prepare
from nanobatch_client.cli.follow import fetch, follow, report
from nanobatch_client.cli.output import Terminal
from nanobatch_client.cli.session import ExecutionId, Json, Quiet, Session, Target


def download(
    execution_id: ExecutionId,
    *,
    folder: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the pictures go.", file_okay=False)
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the run has ended.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    target: Target = wording.DEFAULT_TARGET,
) -> None:
    """Fetch the pictures of a run that are there; those in the folder already are not fetched again."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))

    async def work(client: sdk.Client) -> ExitCode:
        execution = await client.get_execution(execution_id)
        prepare(folder)
        if wait:
            outcome = await follow(session, client, execution, folder=folder)
        else:
            outcome = await fetch(session, client, execution, folder)
        if as_json:
            session.terminal.document(documents.of_outcome(outcome))
        return report(session, outcome, folder)

    session.run(work)


def export(
    execution_id: ExecutionId,
    *,
    file: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The ZIP file to write.", dir_okay=False)
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    quiet: Quiet = False,
    target: Target = wording.DEFAULT_TARGET,
) -> None:
    """Write the pictures of a run that are there into one ZIP file, with a list of all results."""
    session = Session(target, Terminal(quiet=quiet))

    async def work(client: sdk.Client) -> ExitCode:
        await client.export_execution(execution_id, file, overwrite=overwrite)
        session.terminal.data(str(file))
        return ExitCode.OK

    session.run(work)
