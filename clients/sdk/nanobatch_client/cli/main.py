"""The command ``nanobatch``: puts the nouns together. Importing it loads neither gRPC nor rich."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from typing import Annotated

import typer

from nanobatch_client.cli import admin, executions, models, pictures, plugins, run
from nanobatch_client.cli.output import Terminal

_COMMANDS: dict[str, Callable[..., None]] = {
    "run": run.run,
    "watch": executions.watch,
    "download": pictures.download,
    "export": pictures.export,
    "results": executions.results,
    "list": executions.list_,
    "cancel": executions.cancel,
    "pause": executions.pause,
    "resume": executions.resume,
    "retry": executions.retry,
    "delete": executions.delete,
    "models": models.models,
    "check-key": models.check_key,
    "whoami": admin.whoami,
}
_GROUPS: dict[str, Callable[[], typer.Typer]] = {"admin": admin.make_app}


def _version(wanted: bool) -> None:  # noqa: FBT001  # the shape of a typer callback
    if wanted:
        Terminal().data(f"nanobatch {metadata.version('nanobatch-client')}")
        raise typer.Exit


def _top(
    *,
    _: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Turn a list of prompts into a folder of pictures.

    Exit codes: 0 ok, 1 error, 2 usage or invalid request, 3 some pictures failed, 4 key or token refused,
    5 paused (spend cap, quota), 130 interrupted. stdout is data, stderr is notes.
    """


def make_app() -> typer.Typer:
    """Return the app with the client's own commands."""
    # No rich in help and errors: it costs a third of a second, and its tracebacks would show local variables, keys too.
    app = typer.Typer(
        name="nanobatch",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_top)
    for name, command in _COMMANDS.items():
        app.command(name)(command)
    for name, make in _GROUPS.items():
        app.add_typer(make(), name=name)
    return app


def main() -> None:
    """Run the command line."""
    app = make_app()
    # Plugins may be heavy, so they are loaded only where one of them, or the list of all commands, is wanted.
    if sys.argv[1:2] == [] or sys.argv[1] not in _COMMANDS.keys() | _GROUPS.keys():
        plugins.load(app, Terminal().error)
    app()


if __name__ == "__main__":
    main()
