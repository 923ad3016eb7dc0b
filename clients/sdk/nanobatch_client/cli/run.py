"""``nanobatch run``: prompts in, pictures out."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

import nanobatch_client as sdk
from nanobatch_client.cli import documents, wording
from nanobatch_client.cli.exits import ExitCode
from nanobatch_client.cli.folder import prepare
from nanobatch_client.cli.follow import follow, report
from nanobatch_client.cli.keys import Choice, KeyVariableError, choose
from nanobatch_client.cli.output import Terminal
from nanobatch_client.cli.session import Json, KeyVariable, MaxCost, Quiet, Session, Target, micros


def run(
    prompts: Annotated[
        str, typer.Argument(metavar="PROMPTS", help="A text file with one prompt per paragraph; - reads stdin.")
    ],
    *,
    folder: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where the pictures go.", file_okay=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model id. Default: sandbox until a key is given, then gemini-2.5-flash-image."),
    ] = None,
    api_key_env: KeyVariable = None,
    reference: Annotated[
        list[Path] | None, typer.Option("--reference", metavar="FILE", help="A reference picture; may be repeated.")
    ] = None,
    aspect_ratio: Annotated[str | None, typer.Option("--aspect-ratio", metavar="W:H", help="Like 16:9.")] = None,
    image_size: Annotated[str | None, typer.Option("--image-size", help="Size tier, like 2K.")] = None,
    variations: Annotated[int | None, typer.Option("--variations", help="Pictures per prompt, 1 to 4.")] = None,
    max_cost: MaxCost = None,
    max_attempts: Annotated[int | None, typer.Option("--max-attempts", help="Attempts per picture, 1 to 10.")] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Limit of one call to the provider.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="For models that take one.")] = None,
    prefix: Annotated[str | None, typer.Option("--prefix", help="Text put before every prompt.")] = None,
    suffix: Annotated[str | None, typer.Option("--suffix", help="Text put behind every prompt.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say the price, spend nothing.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start and leave; prints the execution's id.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    target: Target = wording.DEFAULT_TARGET,
) -> None:
    """Turn a list of prompts into a folder of pictures.

    Pictures are fetched while the run goes on; their paths go to stdout, notes to stderr. Ctrl-C leaves the run going
    and says how to come back.

    Example: nanobatch run examples/prompts.txt -o pictures/
    """
    if folder is None and not (dry_run or detach):
        raise typer.BadParameter("where are the pictures to go?", param_hint="--output / -o")
    try:
        choice = choose(model, api_key_env, os.environ)
    except KeyVariableError as error:
        raise typer.BadParameter(str(error), param_hint="--api-key-env") from None
    text = _read(prompts)
    references = _readable(reference or [])
    options = _options(
        aspect_ratio=aspect_ratio,
        image_size=image_size,
        variations=variations,
        seed=seed,
        max_cost_micros=micros(max_cost),
        max_attempts=max_attempts,
        timeout=timedelta(seconds=timeout) if timeout is not None else None,
        prefix=prefix,
        suffix=suffix,
        labels=_labels(label or []),
    )
    session = Session(target, Terminal(quiet=quiet, as_json=as_json), prompts=sdk.split_prompts(text))

    async def work(client: sdk.Client) -> ExitCode:
        estimate = await client.estimate_cost(prompts_text=text, model=choice.model, **options)
        _announce(session.terminal, choice, estimate)
        if dry_run:
            return await _price_only(client, session, choice, estimate, len(references))
        if folder is not None and not detach:
            prepare(folder)
        session.on_interrupt = ["Interrupted before the server had answered; `nanobatch list` shows what it accepted."]
        execution = await client.create_execution(
            prompts_text=text, model=choice.model, api_key=choice.api_key, references=references, **options
        )
        session.on_interrupt = _how_to_come_back(execution.id, target, folder)
        if detach or folder is None:
            return _leave(session, execution)
        session.terminal.note(f"execution {execution.id}")
        outcome = await follow(session, client, execution, folder=folder)
        if as_json:
            session.terminal.document(documents.of_outcome(outcome))
        return report(session, outcome, folder)

    session.run(work)


def _announce(terminal: Terminal, choice: Choice, estimate: sdk.Estimate) -> None:
    """Say which model was chosen with which key, and the price, before a cent is spent."""
    key = f" with the key from {choice.variable}" if choice.variable else ""
    terminal.note(f"model {choice.model}{key}: {_price(estimate)}")
    for warning in estimate.warnings:
        terminal.note(f"note: {warning}")


def _price(estimate: sdk.Estimate) -> str:
    pictures = wording.many(estimate.image_count, "picture")
    if not estimate.total_micros:
        return f"{pictures}, free"
    about = f", about {wording.duration(estimate.expected_duration)}" if estimate.expected_duration else ""
    each = wording.money(estimate.per_image_micros)
    return f"{pictures} x {each} = {wording.money(estimate.total_micros)} by the price list{about}"


async def _price_only(
    client: sdk.Client, session: Session, choice: Choice, estimate: sdk.Estimate, references: int
) -> ExitCode:
    """Answer ``--dry-run``. Reference pictures are not uploaded for it, so their number is checked here."""
    allowed = {model.id: model.max_reference_images for model in await client.list_models()}
    if references > allowed.get(choice.model, references):
        message = f"{choice.model} takes at most {allowed[choice.model]} reference pictures, not {references}."
        return session.failed(sdk.InvalidRequestError(message, reason="TOO_MANY_REFERENCES"))
    if session.terminal.as_json:
        session.terminal.document({"model": choice.model, "estimate": estimate})
    else:
        session.terminal.data(f"{choice.model}: {_price(estimate)}")
    return ExitCode.OK


def _leave(session: Session, execution: sdk.Execution) -> ExitCode:
    """Answer ``--detach``: the id is the data."""
    if session.terminal.as_json:
        session.terminal.document(documents.of_execution(execution))
    else:
        session.terminal.data(execution.id)
    session.terminal.note(f"Watch it: `{wording.command('watch', execution.id, session.target)}`")
    return ExitCode.OK


def _how_to_come_back(execution_id: str, target: str, folder: Path | None) -> list[str]:
    where = shlex.quote(str(folder)) if folder else "FOLDER"
    return [
        "Detached; the run goes on.",
        f"  watch it:       {wording.command('watch', execution_id, target)}",
        f"  fetch pictures: {wording.command('download', execution_id, target, '-o', where)}",
        f"  stop it:        {wording.command('cancel', execution_id, target)}",
    ]


def _options(**given: object) -> sdk.RunOptions:
    """Return what was given: what was not is the server's to decide."""
    return {name: value for name, value in given.items() if value is not None}  # type: ignore[return-value]  # checked by each option's own type


def _read(prompts: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if prompts == "-" else Path(prompts).read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise typer.BadParameter(f"cannot read {prompts}: {error.strerror}", param_hint="PROMPTS") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{prompts} is not a text in UTF-8", param_hint="PROMPTS") from None


def _readable(references: Sequence[Path]) -> list[Path]:
    for path in references:
        if not path.is_file():
            raise typer.BadParameter(f"there is no file {path}", param_hint="--reference")
    return list(references)


def _labels(labels: Sequence[str]) -> dict[str, str] | None:
    pairs = [label.partition("=") for label in labels]
    for key, separator, _ in pairs:
        if not key or not separator:
            raise typer.BadParameter("labels look like key=value", param_hint="--label")
    return {key: value for key, _, value in pairs} or None
