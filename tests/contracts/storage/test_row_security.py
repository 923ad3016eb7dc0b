"""The second net: PostgreSQL itself keeps who acts for a user to the rows of that user, whatever the query says."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import uuid
from dataclasses import dataclass, replace
from datetime import timedelta
from types import SimpleNamespace

import psycopg
import pytest
from sqlalchemy import column, delete, func, insert, select, table, text, true, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from nanobatch_runtime.diagnosis import Verdict
from nanobatch_runtime.errors import InvalidArgumentError, Kind, NanobatchError
from nanobatch_runtime.settings import load
from nanobatch_storage import ports
from nanobatch_storage.accounts import NewToken, TokenDigest
from nanobatch_storage.adapters import (
    access,
    accounts_sql,
    creation_sql,
    executions_sql,
    images_sql,
    net_sql,
    tokens_sql,
    usage_sql,
)
from nanobatch_storage.adapters.database import Database
from nanobatch_storage.adapters.engine_postgres import PostgresConnection, PostgresEngine
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.tables import active_executions, metadata, users
from nanobatch_storage.adapters.usage_sql import SqlAnalytics
from nanobatch_storage.doctor import examine_storage
from nanobatch_storage.domain import Actor, NewPrompt
from nanobatch_storage.errors import RequestIdReusedError
from nanobatch_storage.settings import StorageSettings
from nanobatch_storage.usage import UsageQuery

REFUSED = "42501"  # insufficient_privilege: the row would break a policy
SAID = func.current_setting("nanobatch.acts_for")
PID = func.pg_backend_pid()


@pytest.fixture
def database_url(empty_postgres_url):
    return empty_postgres_url


def of_users() -> dict[str, tuple]:
    """Return each table of users' data with the column that says whose a row is: who names a user, or hangs on who does."""
    found = {users.name: (users, users.c.id)}
    for each in metadata.sorted_tables:  # what is referred to comes first
        if any(key.column.table.name in found for key in each.foreign_keys) or "user_id" in each.c:
            found[each.name] = (each, each.c.user_id)
    return {**found, active_executions.name: (active_executions, active_executions.c.user_id)}


TABLES = of_users()


@dataclass
class Owned:
    """A user with a row in every table."""

    actor: Actor
    execution_id: str
    result_id: str
    workflow_id: str
    image_id: str
    token_id: str


@pytest.fixture
def full(store):
    async def make() -> Owned:
        actor = await store.user()
        once = await store.execution(actor, 1)
        await store.control.cancel(actor, once.id)
        again = tuple(result.id for result in await store.results(actor, once.id))
        await store.control.retry(actor, once.id, store.retry(str(uuid.uuid4()), "h", again))
        execution = await store.paid(actor, 2)
        await store.task_out(execution, f"task-{uuid.uuid4()}")
        token = await store.tokens.create(actor, new_token(actor))
        image = await store.upload(actor)
        (first, _) = await store.results(actor, execution.id)
        return Owned(actor, execution.id, first.id, execution.workflow_id, image.id, token.id)

    return make


def new_token(owner: Actor, **changes) -> NewToken:
    digest = TokenDigest(hashlib.sha256(uuid.uuid4().bytes).hexdigest(), "nbt_abcd")
    made = NewToken(user_id=owner.user_id, name="x", digest=digest, expire_time=None, request_id=None, request_hash="")
    return replace(made, **changes)


@pytest.fixture
async def both(full):
    return await full(), await full()


async def owners(database: Database, name: str, actor: Actor | None) -> set[str]:
    """Return whose rows are found in a table by a query without a filter."""
    _, owner = TABLES[name]
    async with database.read(actor) as tx:
        return set((await tx.connection.execute(select(owner))).scalars())


async def refusal(database: Database, statement, actor: Actor) -> str | None:
    with pytest.raises(DBAPIError) as caught:
        await database.write(lambda tx: tx.connection.execute(statement), actor)
    return caught.value.orig.sqlstate


# The net alone


def test_every_table_of_users_data_says_whose_its_rows_are_and_is_under_the_net():
    assert {each.name for each in net_sql.guarded()} == set(TABLES)
    assert {"users", "executions", "results", "attempts", "images", "tokens"} <= set(TABLES)
    assert set(metadata.tables) - set(TABLES) == {"buckets", "secrets"}  # a new one is looked at by whoever adds it


async def test_tests_are_made_as_a_role_that_policies_hold_for(store):
    found = await net_sql.look(store.database)
    assert (found.role, found.ignores, found.open_tables) == ("nanobatch", False, ())


@pytest.mark.parametrize("name", TABLES)
async def test_rows_of_others_are_neither_seen_nor_written(store, both, name):
    mine, theirs = (one.actor for one in both)
    what, owner = TABLES[name]
    assert await owners(store.database, name, None) == {mine.user_id, theirs.user_id}  # there is something to be seen
    assert await owners(store.database, name, mine) == {mine.user_id}

    async def work(tx):
        changes = (
            update(what).where(owner == theirs.user_id).values({owner.name: theirs.user_id}),
            delete(what).where(owner == theirs.user_id),
            update(what).values({owner.name: owner}),
        )
        return [set((await tx.connection.execute(each.returning(owner))).scalars()) for each in changes]

    assert await store.database.write(work, mine) == [set(), set(), {mine.user_id}]
    async with store.database.read() as tx:
        row = (await tx.connection.execute(select(what).where(owner == theirs.user_id))).mappings().first()
    copied = {key: value for key, value in row.items() if what.c[key].computed is None}
    assert await refusal(store.database, insert(what).values(copied), mine) == REFUSED
    given_away = update(what).where(owner == mine.user_id).values({owner.name: theirs.user_id})
    assert await refusal(store.database, given_away, mine) == REFUSED


@pytest.mark.parametrize("name", TABLES)
async def test_who_names_no_user_where_one_is_meant_sees_nothing_and_writes_nothing(store, both, name):
    what, owner = TABLES[name]
    assert await owners(store.database, name, Actor("")) == set()
    async with (
        store.database._engine._users.connect() as connection
    ):  # as a statement that slipped past the transaction
        assert (await connection.execute(select(func.count()).select_from(what))).scalar_one() == 0
        assert (await connection.execute(delete(what))).rowcount == 0
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(text(f"insert into {name} ({owner.name}) values ('{both[0].actor.user_id}')"))
        assert caught.value.orig.sqlstate == REFUSED


async def test_admins_and_the_system_work_for_all(store, both):
    admin = await store.user(admin=True)
    for actor in (None, admin):
        found = await owners(store.database, "executions", actor)
        assert found == {one.actor.user_id for one in both}


@pytest.mark.parametrize("before", ["never said", "said once"])
async def test_the_version_before_says_nothing_and_works_on(database_url, both, before):
    """Its processes go on beneath the new schema until they are replaced."""
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as old:
        if before == "said once":  # what a setting is in a session after its transaction: '', not null
            old.execute("begin; select set_config('nanobatch.acts_for', 'nobody', true); commit")
        for name, (_, owner) in TABLES.items():
            found = old.execute(f"update {name} set {owner.name} = {owner.name} returning {owner.name}").fetchall()
            assert {str(row[0]) for row in found} == {one.actor.user_id for one in both}, name


# Filters forgotten


async def reached(asked) -> bool:
    """Whether something was found out: any answer but that there is no such thing."""
    try:
        await asked
    except NanobatchError as error:
        return error.kind is not Kind.NOT_FOUND
    return True


async def _create(store, me: Actor, theirs: Owned) -> bool:
    image = (NewPrompt("x", source_image_id=theirs.image_id),)
    fields = {"workflow_id": theirs.workflow_id, "parent_execution_id": theirs.execution_id, "prompts": image}
    try:
        await store.execution(me, 1, **fields)
    except InvalidArgumentError as error:
        return len(error.violations) < len(fields)
    return True


async def _listed(store, me: Actor, theirs: Owned) -> bool:
    page = await store.executions.list(me, 100, "")
    return theirs.execution_id in {one.execution.id for one in page.items}


async def _account(store, me: Actor, theirs: Owned) -> bool:
    return (await store.accounts.get(me, theirs.token_id)).token is not None


async def _images(store, me: Actor, theirs: Owned) -> bool:
    return bool(await store.images.get_many(me, [theirs.image_id]))


def _usage(store, me: Actor, theirs: Owned):
    now = store.clock.now()
    query = UsageQuery(now - timedelta(days=1), now + timedelta(days=1), user_id=theirs.actor.user_id)
    return SqlAnalytics(store.database).usage(me, query)


ASKED = {
    "Executions.create": _create,
    "Executions.get": lambda store, me, theirs: reached(store.executions.get(me, theirs.execution_id)),
    "Executions.list": _listed,
    "Executions.list_results": lambda store, me, theirs: reached(
        store.executions.list_results(me, theirs.execution_id, 10, "", ())
    ),
    "Executions.get_result": lambda store, me, theirs: reached(store.executions.get_result(me, theirs.result_id)),
    "Control.cancel": lambda store, me, theirs: reached(store.control.cancel(me, theirs.execution_id)),
    "Control.pause": lambda store, me, theirs: reached(store.control.pause(me, theirs.execution_id)),
    "Control.resume": lambda store, me, theirs: reached(store.control.resume(me, theirs.execution_id, None, None)),
    "Control.retry": lambda store, me, theirs: reached(store.control.retry(me, theirs.execution_id, store.retry())),
    "Control.delete": lambda store, me, theirs: reached(store.control.delete(me, theirs.execution_id)),
    "ChangeLog.since": lambda store, me, theirs: reached(store.changes.since(me, theirs.execution_id, 0)),
    "Images.get_many": _images,
    "Accounts.get": _account,
    "Analytics.usage": lambda store, me, theirs: reached(_usage(store, me, theirs)),
    "Tokens.create": lambda store, me, theirs: reached(store.tokens.create(me, new_token(theirs.actor))),
    "Tokens.list": lambda store, me, theirs: reached(store.tokens.list(me, theirs.actor.user_id, 10, "")),
    "Tokens.revoke": lambda store, me, theirs: reached(store.tokens.revoke(me, theirs.token_id)),
}
# Answered without a look at anything of users', or asked for by the system itself.
NOT_ASKED = {
    "Accounts.ensure_user",
    "Tokens.ensure_first_admin",
    "Stats.queue",
    "Users.create",
    "Users.list",
    "Users.update",
}


def test_all_that_is_asked_on_behalf_of_somebody_is_tried():
    named = {
        f"{port}.{name}"
        for port, kind in vars(ports).items()
        if inspect.isclass(kind) and kind.__module__ == ports.__name__
        for name, method in vars(kind).items()
        if inspect.isfunction(method) and "actor" in inspect.signature(method).parameters
    }
    assert named == set(ASKED) | NOT_ASKED


@pytest.fixture
def unfiltered(monkeypatch):
    """The service with its filters of users taken out."""
    find_user = accounts_sql.find_user

    def anybodys(*_):
        return true()

    for module in (access, accounts_sql, creation_sql, executions_sql, images_sql, tokens_sql):
        for name in {"owned", "visible"} & vars(module).keys():
            monkeypatch.setattr(module, name, anybodys)
    monkeypatch.setattr(access, "_OWN_VIEW", Prepared(access._VIEW))
    for module in (accounts_sql, tokens_sql, usage_sql):
        monkeypatch.setattr(
            module, "find_user", lambda tx, actor, user_id: find_user(tx, replace(actor, admin=True), user_id)
        )


@pytest.fixture
def without_net(postgres_server, database_url):
    """The database with its policies switched off."""
    with postgres_server.connect(make_url(database_url).database) as connection:
        for name in TABLES:
            connection.execute(f"alter table {name} disable row level security")
        yield
        for name in TABLES:
            connection.execute(f"alter table {name} enable row level security")


@pytest.mark.parametrize("method", ASKED)
async def test_a_filter_that_was_forgotten_shows_nobody_elses_rows(store, both, unfiltered, method):
    me, theirs = both
    assert not await ASKED[method](store, me.actor, theirs)


@pytest.mark.parametrize("method", ASKED)
async def test_without_the_net_it_would_have(store, both, unfiltered, without_net, method):
    """So that the test above can fail."""
    me, theirs = both
    assert await ASKED[method](store, me.actor, theirs)


@pytest.mark.parametrize("method", ASKED)
async def test_without_the_net_the_filters_hold_by_themselves(store, both, without_net, method):
    me, theirs = both
    assert not await ASKED[method](store, me.actor, theirs)


@pytest.mark.parametrize("method", ASKED)
async def test_what_is_asked_for_a_user_is_asked_in_a_session_for_users_alone(store, both, monkeypatch, method):
    """Own things are found, so that each is asked to its end."""
    me, _ = both

    def connect():
        raise AssertionError("a session that acts for everybody")

    with monkeypatch.context() as patched:
        others = SimpleNamespace(connect=connect, dialect=store.database.dialect)
        patched.setattr(store.database._engine, "_engine", others)
        assert await ASKED[method](store, me.actor, me)


# Sessions


@pytest.fixture
async def one_session(database_url):
    database = Database(PostgresEngine(make_url(database_url), pool_size=1, users_pool_size=1))
    yield database
    await database.close()


async def standing(database: Database) -> tuple[int, str]:
    """Return the pid and the setting of the one session for users, as it lies in the pool."""
    async with database._engine._users.connect() as connection:
        return tuple((await connection.execute(select(PID, SAID))).one())


async def test_a_session_that_goes_from_user_to_user_keeps_nothing(store, both, one_session):
    seen = []

    async def ask(tx):
        seen.append(tuple((await tx.connection.execute(select(PID, SAID))).one()))
        return set((await tx.connection.execute(select(TABLES["executions"][1]))).scalars())

    pid, said = await standing(one_session)
    assert said == "nobody"
    for one in (*both, *both):
        async with one_session.read(one.actor) as tx:
            assert await ask(tx) == {one.actor.user_id}
        assert await standing(one_session) == (pid, "nobody")
        assert await one_session.write(ask, one.actor) == {one.actor.user_id}
        assert await standing(one_session) == (pid, "nobody")
    assert seen == [(pid, one.actor.user_id) for one in (*both, *both) for _ in range(2)]


async def test_what_is_asked_for_users_again_and_again_is_prepared_once(both, one_session):
    """The driver forgets all that it has prepared when a transaction is rolled back."""
    asked = Prepared(select(users.c.name))
    for _ in range(10):
        async with one_session.read(both[0].actor) as tx:
            await tx.connection.execute(asked, {})
    async with one_session._engine._users.connect() as connection:
        found = (
            await connection.execute(text("select generic_plans + custom_plans from pg_prepared_statements"))
        ).all()
    assert [uses for (uses,) in found if uses >= 5]


async def test_a_question_that_fails_or_is_given_up_leaves_no_user_in_its_session(store, both, one_session):
    me = both[0].actor
    wrong = select(text("no_such_column")).select_from(users)

    async def fail(tx):
        await tx.connection.execute(wrong)

    async def hang(actor):
        async with one_session.read(actor) as tx:
            await tx.connection.execute(select(func.pg_sleep(30)))

    with pytest.raises(DBAPIError):
        await one_session.write(fail, me)
    assert (await standing(one_session))[1] == "nobody"
    with pytest.raises(DBAPIError):
        async with one_session.read(me) as tx:
            await fail(tx)
    assert (await standing(one_session))[1] == "nobody"
    for rounds in range(30):
        asked = asyncio.create_task(hang(me))
        for _ in range(rounds):
            await asyncio.sleep(0.001)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert (await standing(one_session))[1] == "nobody", rounds


async def test_what_users_ask_for_takes_no_session_from_the_queue(store, both, database_url):
    database = Database(PostgresEngine(make_url(database_url), pool_size=1, users_pool_size=1, wait_seconds=0.2))
    async with database.read(both[0].actor), database.read() as tx:
        assert (await tx.connection.execute(select(SAID))).scalar_one() == "everybody"
        assert database.connections() == (2, 2)
    await database.close()


async def test_a_question_for_a_user_costs_no_statement_more_than_one_for_all(both, database_url, monkeypatch):
    """Its user goes with BEGIN, and so does the question for the time."""
    sent, run = [], PostgresConnection.execute

    async def note(connection, statement, parameters=None):
        sent.append(statement)
        return await run(connection, statement, parameters)

    monkeypatch.setattr(PostgresConnection, "execute", note)
    database = Database(PostgresEngine(make_url(database_url)))
    for actor, asks in ((None, 2), (both[0].actor, 1)):
        sent.clear()
        async with database.read(actor) as tx:
            await tx.connection.execute(select(table("users", column("id"))))
        assert len(sent) == asks
    await database.close()


# What follows from not seeing


async def test_who_was_an_admin_is_told_of_the_request_ids_they_have_used_for_others(store):
    admin, other = await store.user(admin=True), await store.user()
    request = {"request_id": str(uuid.uuid4()), "request_hash": "h"}
    await store.tokens.create(admin, new_token(other, **request))
    demoted = replace(admin, admin=False)
    with pytest.raises(RequestIdReusedError):
        await store.tokens.create(demoted, new_token(demoted, **request))


# What `nanobatch doctor` makes of it


async def examined(database_url: str, tmp_path):
    settings = load(StorageSettings, database_url=database_url, data_dir=tmp_path, listen="unix:/unused")
    return {finding.check: finding for finding in await examine_storage(settings)}["row security"]


async def test_the_doctor_says_whether_the_net_holds(database_url, tmp_path, request):
    holds = await examined(database_url, tmp_path)
    assert (holds.verdict, holds.detail) == (Verdict.OK, f"holds in {len(TABLES)} tables")
    root = make_url(database_url).set(username="postgres").render_as_string(hide_password=False)
    ignored = await examined(root, tmp_path)
    assert (ignored.verdict, "for the role postgres" in ignored.detail) == (Verdict.WARNING, True)
    assert "BYPASSRLS" in ignored.advice
    request.getfixturevalue("without_net")
    off = await examined(database_url, tmp_path)
    assert (off.verdict, off.detail.startswith("It is off for ")) == (Verdict.WARNING, True)
