"""The server's commands: ``up``, ``serve`` and ``migrate`` join the client's command line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from nanobatch_runtime.settings import Settings

S = TypeVar("S", bound="Settings")


class Service(StrEnum):
    """What ``serve`` can run."""

    GATEWAY = "gateway"
    GENERATOR = "generator"
    STORAGE = "storage"
    WEB = "web"


def register(app: typer.Typer) -> None:
    """Add the commands. The services themselves are imported when a command runs."""
    app.command()(up)
    app.command()(serve)
    app.command()(migrate)


def up(
    data: Annotated[
        Path | None, typer.Option(help="Data folder (NANOBATCH_DATA_DIR, ./data).", file_okay=False)
    ] = None,
    gateway: Annotated[
        str | None, typer.Option(help="Public gRPC address (NANOBATCH_GATEWAY_GRPC, 127.0.0.1:50051).")
    ] = None,
) -> None:
    """Run everything in one process on this machine: no login, no other program needed."""
    from nanobatch_embedded.settings import EmbeddedSettings

    given = {"data_dir": data, "gateway": gateway}
    settings = _load(EmbeddedSettings, **{name: value for name, value in given.items() if value is not None})
    from nanobatch_embedded import main

    _exit_with(lambda: main.run(settings))


def serve(service: Annotated[Service, typer.Argument(help="Which service.")]) -> None:
    """Run one service as this process, set up by the environment (docs/operations.md)."""
    match service:
        case Service.GATEWAY:
            from nanobatch_gateway.main import main
        case Service.GENERATOR:
            from nanobatch_generator.main import main
        case Service.STORAGE:
            from nanobatch_storage.main import main
        case Service.WEB:
            from nanobatch_web.main import main
    _exit_with(main)


def migrate() -> None:
    """Bring the database's schema up to date. Safe to run twice and by several at once."""
    from nanobatch_runtime.errors import NanobatchError
    from nanobatch_storage.migrate import upgrade
    from nanobatch_storage.settings import StorageSettings

    settings = _load(StorageSettings)
    if settings.database_url.startswith("sqlite"):  # beside PostgreSQL there is nothing to put anywhere
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        asyncio.run(upgrade(settings.database_url))
    except NanobatchError as error:
        typer.echo(f"nanobatch cannot migrate: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo("The schema is up to date.", err=True)


def _load(kind: type[S], **overrides: object) -> S:
    from nanobatch_runtime.settings import SettingsError, load

    try:
        return load(kind, **overrides)
    except SettingsError as error:
        typer.echo(f"nanobatch cannot start:\n{error}", err=True)
        raise typer.Exit(2) from None


def _exit_with(run: Callable[[], int]) -> None:
    code = run()
    if code:
        raise typer.Exit(code)
