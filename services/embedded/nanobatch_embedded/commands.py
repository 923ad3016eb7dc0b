"""The server's commands: ``up``, ``serve``, ``migrate`` and ``doctor`` join the client's command line."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import asdict
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
    app.command()(doctor)


def up(
    data: Annotated[
        Path | None, typer.Option(help="Data folder (NANOBATCH_DATA_DIR, ./data).", file_okay=False)
    ] = None,
    gateway: Annotated[
        str | None, typer.Option(help="Public gRPC address (NANOBATCH_GATEWAY_GRPC, 127.0.0.1:50051).")
    ] = None,
) -> None:
    """Run everything in one process on this machine: no login, no other program needed."""
    from nanobatch_runtime import logs  # noqa: F401, I001  # first: it imports structlog as it should be
    from nanobatch_embedded.settings import EmbeddedSettings

    given = {"data_dir": data, "gateway": gateway}
    settings = _load(EmbeddedSettings, **{name: value for name, value in given.items() if value is not None})
    from nanobatch_embedded import main

    _exit_with(lambda: main.run(settings))


def serve(service: Annotated[Service, typer.Argument(help="Which service.")]) -> None:
    """Run one service as this process, set up by the environment (docs/operations.md)."""
    from nanobatch_runtime import logs  # noqa: F401  # first: it imports structlog as it should be

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


def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")] = False,
    picture: Annotated[
        bool, typer.Option("--picture", help="Make a picture with the free sandbox, and delete it.")
    ] = False,
) -> None:
    """Ask everything that nanobatch needs, with this environment, and say what to do. Exit code 1 where something fails."""
    from nanobatch_embedded import doctor as examining
    from nanobatch_runtime.diagnosis import Finding, Verdict
    from nanobatch_runtime.settings import SettingsError

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    found: list[Finding] = []

    async def run() -> None:
        async for finding in examining.examinations(picture=picture):
            found.append(finding)
            if not as_json:
                took = f"{finding.milliseconds} ms" if finding.verdict is Verdict.OK else ""
                parts = (f"{finding.verdict:8}{finding.check}", finding.address, finding.detail, took)
                typer.echo("  ".join(part for part in parts if part))
                if finding.advice:
                    typer.echo(f"          {finding.advice}")

    try:
        asyncio.run(run())
    except SettingsError as error:
        typer.echo(f"nanobatch doctor cannot start:\n{error}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps({"findings": [asdict(finding) for finding in found]}, indent=2))
    if any(finding.verdict is Verdict.FAILED for finding in found):
        raise typer.Exit(1)


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
