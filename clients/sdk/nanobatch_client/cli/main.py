"""The command ``nanobatch``: puts the nouns together. Importing it loads neither gRPC nor rich."""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from typing import Annotated, Any

import typer

from nanobatch_client.cli import plugins
from nanobatch_client.cli.output import Terminal

# By module and name, and loaded when the client is what is wanted: a service that is started by this command keeps what is
# loaded for as long as it runs.
_COMMANDS = {
    "run": "run.run",
    "watch": "executions.watch",
    "download": "pictures.download",
    "export": "pictures.export",
    "results": "executions.results",
    "list": "executions.list_",
    "cancel": "executions.cancel",
    "pause": "executions.pause",
    "resume": "executions.resume",
    "retry": "executions.retry",
    "delete": "executions.delete",
    "models": "models.models",
    "check-key": "models.check_key",
    "whoami": "admin.whoami",
}
_GROUPS = {"admin": "admin.make_app"}


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
    app = _empty_app()
    for name, place in _COMMANDS.items():
        app.command(name)(_loaded(place))
    for name, place in _GROUPS.items():
        app.add_typer(_loaded(place)(), name=name)
    return app


def _empty_app() -> typer.Typer:
    # No rich in help and errors: it costs a third of a second, and its tracebacks would show local variables, keys too.
    app = typer.Typer(
        name="nanobatch",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_top)
    return app


def _loaded(place: str) -> Any:
    module, _, name = place.partition(".")
    return getattr(import_module(f"nanobatch_client.cli.{module}"), name)


def main() -> None:
    """Run the command line."""
    word = next(iter(sys.argv[1:]), "")
    if word in _COMMANDS or word in _GROUPS:
        make_app()()
        return
    # Plugins may be heavy, so they are loaded only where one of them, or the list of all commands, is wanted.
    theirs = _empty_app()
    plugins.load(theirs, Terminal().error)
    if word in {each.name for each in typer.main.get_group(theirs).commands.values()}:
        theirs()
        return
    every = make_app()
    every.registered_commands += theirs.registered_commands
    every.registered_groups += theirs.registered_groups
    every()


if __name__ == "__main__":
    main()
