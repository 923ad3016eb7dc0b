"""``nanobatch whoami`` and ``nanobatch admin``: users and their tokens, through the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

import nanobatch_client as sdk
from nanobatch_client.cli import wording
from nanobatch_client.cli.exits import ExitCode
from nanobatch_client.cli.output import Terminal
from nanobatch_client.cli.session import Json, Quiet, Session, Target, micros

_MOST_SHOWN = 10
UserId = Annotated[str, typer.Argument(metavar="USER_ID", help="The user's id.")]
OfUser = Annotated[
    str | None,
    typer.Option("--user", metavar="USER_ID", help="Whose; without it your own. Only admins may name others."),
]
DailyCap = Annotated[
    str | None,
    typer.Option("--daily-cap", metavar="DOLLARS", help="Most that may be spent for them in a day (UTC)."),
]


def make_app() -> typer.Typer:
    """Return ``admin`` with ``user``, ``token`` and ``stats`` in it."""
    admin = _group("Manage users and their tokens, look at the queue. Needs an admin's token in NANOBATCH_TOKEN.")
    users = _group("Manage users.")
    users.command("create")(create_user)
    users.command("list")(list_users)
    users.command("update")(update_user)
    tokens = _group("Manage tokens, your own or a user's.")
    tokens.command("create")(create_token)
    tokens.command("list")(list_tokens)
    tokens.command("revoke")(revoke_token)
    admin.command("stats")(stats)
    admin.add_typer(users, name="user")
    admin.add_typer(tokens, name="token")
    return admin


def _group(text: str) -> typer.Typer:
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def whoami(*, as_json: Json = False, quiet: Quiet = False, target: Target = wording.DEFAULT_TARGET) -> None:
    """Say in whose name your calls are made: id, role, name."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))

    async def work(client: sdk.Client) -> ExitCode:
        account = await client.who_am_i()
        if as_json:
            session.terminal.document(account)
            return ExitCode.OK
        session.terminal.data(_columns(account.user))
        if account.token is not None:
            session.terminal.note(f"by the token {account.token.prefix}... {_token_state(account.token)}")
        return ExitCode.OK

    session.run(work)


def stats(*, as_json: Json = False, quiet: Quiet = False, target: Target = wording.DEFAULT_TARGET) -> None:
    """Say how the server is doing: queue, generators, provider keys that wait."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))

    async def work(client: sdk.Client) -> ExitCode:
        found = await client.get_server_stats()
        if as_json:
            session.terminal.document({"stats": found})
            return ExitCode.OK
        for line in _stats_lines(found):
            session.terminal.data(line)
        return ExitCode.OK

    session.run(work)


def create_user(
    name: Annotated[str, typer.Argument(help="Name for people.")],
    *,
    admin: Annotated[bool, typer.Option("--admin", help="They see and change everything.")] = False,
    daily_cap: DailyCap = None,
    as_json: Json = False,
    quiet: Quiet = False,
    target: Target = wording.DEFAULT_TARGET,
) -> None:
    """Make a user and write their id to stdout. They can do nothing before they have a token."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))
    cap, role = micros(daily_cap, "--daily-cap"), sdk.Role.ADMIN if admin else sdk.Role.CLIENT

    async def work(client: sdk.Client) -> ExitCode:
        user = await client.create_user(name, role=role, daily_cap_micros=cap)
        if as_json:
            session.terminal.document({"user": user})
            return ExitCode.OK
        session.terminal.data(user.id)
        session.terminal.note(f"Make a token for them: `nanobatch admin token create --user {user.id}`")
        return ExitCode.OK

    session.run(work)


def list_users(*, as_json: Json = False, quiet: Quiet = False, target: Target = wording.DEFAULT_TARGET) -> None:
    """List users, oldest first: id, role, name, daily cap."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))

    async def work(client: sdk.Client) -> ExitCode:
        users = [user async for user in client.list_users()]
        if as_json:
            session.terminal.document({"users": users})
            return ExitCode.OK
        for user in users:
            session.terminal.data(_columns(user))
        return ExitCode.OK

    session.run(work)


def update_user(
    user_id: UserId,
    *,
    name: Annotated[str | None, typer.Option("--name", help="Another name.")] = None,
    admin: Annotated[bool | None, typer.Option("--admin/--client", help="Another role.")] = None,
    disabled: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Whether none of their tokens works.")
    ] = None,
    daily_cap: DailyCap = None,
    no_daily_cap: Annotated[bool, typer.Option("--no-daily-cap", help="Lift their daily cap.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    target: Target = wording.DEFAULT_TARGET,
) -> None:
    """Change a user. What runs for a disabled user runs on: cancel it if it shall not."""
    if daily_cap is not None and no_daily_cap:
        raise typer.BadParameter("give either --daily-cap or --no-daily-cap", param_hint="--no-daily-cap")
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))
    cap = micros(daily_cap, "--daily-cap")
    role = None if admin is None else sdk.Role.ADMIN if admin else sdk.Role.CLIENT

    async def work(client: sdk.Client) -> ExitCode:
        user = await client.update_user(
            user_id, name=name, role=role, disabled=disabled, daily_cap_micros=cap, no_daily_cap=no_daily_cap
        )
        if as_json:
            session.terminal.document({"user": user})
            return ExitCode.OK
        session.terminal.data(_columns(user))
        return ExitCode.OK

    session.run(work)


def create_token(
    name: Annotated[str, typer.Argument(help="Name for people, such as where it is used.")] = "",
    *,
    user_id: OfUser = None,
    days: Annotated[int | None, typer.Option("--days", min=1, help="Stop working after so many days.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    target: Target = wording.DEFAULT_TARGET,
) -> None:
    """Make a token and write it to stdout. Nobody can see it again."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))

    async def work(client: sdk.Client) -> ExitCode:
        expire_time = datetime.now(UTC) + timedelta(days=days) if days is not None else None
        created = await client.create_token(name, user_id=user_id, expire_time=expire_time)
        if as_json:
            session.terminal.document(created)
            return ExitCode.OK
        session.terminal.data(created.secret)
        session.terminal.note("Keep it: it is shown this once. Commands read it from NANOBATCH_TOKEN.")
        return ExitCode.OK

    session.run(work)


def list_tokens(
    *,
    user_id: OfUser = None,
    as_json: Json = False,
    quiet: Quiet = False,
    target: Target = wording.DEFAULT_TARGET,
) -> None:
    """List tokens, oldest first: id, first characters, name, state, last use."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))

    async def work(client: sdk.Client) -> ExitCode:
        tokens = [token async for token in client.list_tokens(user_id)]
        if as_json:
            session.terminal.document({"tokens": tokens})
            return ExitCode.OK
        for token in tokens:
            used = f"used {wording.clock(token.last_use_time)}" if token.last_use_time else "not used"
            session.terminal.data("\t".join((token.id, token.prefix, token.name, _token_state(token), used)))
        return ExitCode.OK

    session.run(work)


def revoke_token(
    token_id: Annotated[str, typer.Argument(metavar="TOKEN_ID", help="The token's id, as `list` shows it.")],
    *,
    as_json: Json = False,
    quiet: Quiet = False,
    target: Target = wording.DEFAULT_TARGET,
) -> None:
    """Make a token stop working: for new calls within 10 s, for open streams within 30 s."""
    session = Session(target, Terminal(quiet=quiet, as_json=as_json))

    async def work(client: sdk.Client) -> ExitCode:
        token = await client.revoke_token(token_id)
        if as_json:
            session.terminal.document({"token": token})
        session.terminal.note(f"{token.prefix}... is {_token_state(token)}.")
        return ExitCode.OK

    session.run(work)


def _stats_lines(found: sdk.ServerStats) -> Iterator[str]:
    waited = ""
    if found.oldest_ready_time is not None:
        waited = f"longest for {_seconds(found.read_time - found.oldest_ready_time)}"
    yield f"results ready\t{found.results_ready}\t{waited}".rstrip("\t")
    cooling = f"{found.results_cooling} for nothing but their key" if found.results_cooling else ""
    yield f"results later\t{found.results_later}\t{cooling}".rstrip("\t")
    lost = f"{found.leases_expired} of generators that are gone" if found.leases_expired else ""
    yield f"results in flight\t{found.results_in_flight}\t{lost}".rstrip("\t")
    yield f"tasks out\t{found.tasks_out}"
    for task in found.tasks[:_MOST_SHOWN]:
        out = f"out for {_seconds(found.read_time - task.submit_time)} of {_seconds(task.timeout)}"
        yield f"task\t{task.provider} {task.task_id}\t{out}\texecution {task.execution_id}"
    yield f"executions active\t{found.executions_active}"
    for reason, count in found.executions_paused.items():
        yield f"executions paused\t{count}\t{reason}"
    for name, seen in found.generators.items():
        yield f"generator\t{name}\theard of {wording.clock(seen)}"
    for key in found.cooling_keys:
        until = f"{key.reason} until {wording.clock(key.until)}"
        yield f"key waits\t{key.provider} {key.model}\t{until}\t{key.results} results for it"


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():.0f} s"


def _columns(user: sdk.User) -> str:
    cap = "" if user.daily_cap_micros is None else f"{wording.money(user.daily_cap_micros)} a day"
    state = "disabled" if user.disabled else ""
    return f"{user.id}\t{user.role.value.lower()}\t{user.name}\t{cap}\t{state}".rstrip("\t")


def _token_state(token: sdk.Token) -> str:
    if token.revoke_time is not None:
        return f"revoked {wording.clock(token.revoke_time)}"
    if token.expire_time is None:
        return "valid"
    word = "expired" if token.expire_time <= datetime.now(UTC) else "valid until"
    return f"{word} {wording.clock(token.expire_time)}"
