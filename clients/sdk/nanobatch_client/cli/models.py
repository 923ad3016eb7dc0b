"""``nanobatch models`` and ``nanobatch check-key``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

import nanobatch_client as sdk
from nanobatch_client.cli import wording
from nanobatch_client.cli.exits import ExitCode
from nanobatch_client.cli.keys import KeyVariableError, choose
from nanobatch_client.cli.output import Terminal
from nanobatch_client.cli.session import Json, KeyVariable, Quiet, Session, Target


def models(*, as_json: Json = False, quiet: Quiet = False, target: Target = wording.DEFAULT_TARGET) -> None:
    """List the models, the ones to prefer first: id, name, price of a picture."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))

    async def work(client: sdk.Client) -> ExitCode:
        found = await client.list_models()
        if as_json:
            session.terminal.document({"models": found})
            return ExitCode.OK
        for model in found:
            session.terminal.data("\t".join((model.id, model.display_name, _prices(model))))
            for warning in model.warnings:
                session.terminal.note(f"note: {warning}")
        return ExitCode.OK

    session.run(work)


def _prices(model: sdk.Model) -> str:
    prices = [(price.image_size, wording.money(price.micros)) for price in model.prices]
    if not any(price.micros for price in model.prices):
        return "free"
    return ", ".join(f"{size} {price}".strip() for size, price in prices)


def check_key(
    *,
    model: Annotated[str | None, typer.Option("--model", help="The model that the key is meant for.")] = None,
    api_key_env: KeyVariable = None,
    as_json: Json = False,
    quiet: Quiet = False,
    target: Target = wording.DEFAULT_TARGET,
) -> None:
    """Ask the provider whether it takes the key; costs nothing. Exit code 4 where it does not."""
    try:
        choice = choose(model, api_key_env, os.environ)
    except KeyVariableError as error:
        raise typer.BadParameter(str(error), param_hint="--api-key-env") from None
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))

    async def work(client: sdk.Client) -> ExitCode:
        check = await client.check_api_key(choice.model, choice.api_key)
        if as_json:
            session.terminal.document({"model": choice.model, "check": check})
        if not check.valid or not check.model_available:
            session.terminal.error(check.message or f"The key is not good for {choice.model}.")
            return ExitCode.ERROR if check.valid else ExitCode.KEY
        good = f"The provider takes the key and offers {choice.model}."
        session.terminal.note(check.message or (good if choice.api_key else f"{choice.model} needs no key."))
        return ExitCode.OK

    session.run(work)
