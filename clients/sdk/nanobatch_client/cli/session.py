"""From a typed command to an exit code: a client, an event loop, errors in words, Ctrl-C."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Annotated, NoReturn

import typer

import nanobatch_client as sdk
from nanobatch_client.cli import exits, wording
from nanobatch_client.cli.exits import ExitCode
from nanobatch_client.cli.keys import KeyVariableError, named_key
from nanobatch_client.cli.output import Terminal

Target = Annotated[
    str,
    typer.Option(
        "--target", metavar="HOST:PORT", envvar=wording.TARGET_VARIABLE, help="Where the nanobatch gateway listens."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr; errors are still shown.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
ExecutionId = Annotated[str, typer.Argument(metavar="ID", help="The execution's id.")]
KeyVariable = Annotated[
    str | None,
    typer.Option("--api-key-env", metavar="NAME", help="Name of the environment variable that holds the provider key."),
]
MaxCost = Annotated[
    str | None, typer.Option("--max-cost", metavar="DOLLARS", help="Pause before more than this is spent.")
]


@dataclass(slots=True)
class Session:
    """One command's run. ``on_interrupt`` is what to tell a person who pressed Ctrl-C; it grows as more is known."""

    target: str
    terminal: Terminal
    prompts: Sequence[str] = ()
    on_interrupt: list[str] = field(default_factory=lambda: ["Interrupted."])

    def run(self, work: Callable[[sdk.Client], Awaitable[ExitCode]]) -> NoReturn:
        """Do the work with an open client, and end the command with its code."""

        async def connected() -> ExitCode:
            async with sdk.Client(self.target, token=os.environ.get(wording.TOKEN_VARIABLE) or None) as client:
                return await work(client)

        # gRPC's own core writes notes of the connection's life to stderr, which is ours. Read when it is loaded.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        try:
            code = asyncio.run(connected())
        except KeyboardInterrupt:
            self.terminal.error(*self.on_interrupt)
            code = ExitCode.INTERRUPTED
        except sdk.NanobatchError as error:
            code = self.failed(error)
        except BrokenPipeError:
            raise  # whoever read our output has gone: typer ends quietly
        except OSError as error:
            self.terminal.error(str(error))
            code = ExitCode.ERROR
        raise typer.Exit(int(code))

    def failed(self, error: sdk.NanobatchError) -> ExitCode:
        """Tell what went wrong, on stdout too where JSON is wanted."""
        self.terminal.error(*wording.problem(error, self.target, self.prompts))
        code = exits.of_error(error)
        if self.terminal.as_json:
            facts = {"code": error.code, "reason": error.reason, "message": error.message}
            self.terminal.document({"error": {**facts, "violations": error.violations, "exit_code": int(code)}})
        return code


def micros(dollars: str | None, option: str = "--max-cost") -> int | None:
    """Return an amount given in dollars, like ``2.50``, as micros; a usage error names the option."""
    if dollars is None:
        return None
    try:
        amount = Decimal(dollars.removeprefix("$")) * 1_000_000
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0 or amount != int(amount):
        raise typer.BadParameter(f"{dollars} is not an amount in dollars, like 2.50", param_hint=option)
    return int(amount)


def key_from(variable: str | None) -> str | None:
    """Return the key in the named variable; a usage error where there is none."""
    try:
        return named_key(variable, os.environ)
    except KeyVariableError as error:
        raise typer.BadParameter(str(error), param_hint="--api-key-env") from None
