"""What ``nanobatch doctor`` asks of storage's dependencies: database, schema, row security, clock, pictures, queue."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import select
from sqlalchemy.engine import make_url

from nanobatch_runtime.diagnosis import (
    ComplaintError,
    ConcernError,
    DoesNotApplyError,
    Finding,
    Verdict,
    examine,
    skipped,
)
from nanobatch_storage import migrate
from nanobatch_storage.adapters import net_sql
from nanobatch_storage.adapters.database import Database, Transaction, open_database
from nanobatch_storage.adapters.stats_sql import SqlStats
from nanobatch_storage.adapters.tables import users
from nanobatch_storage.clocks import TOGETHER
from nanobatch_storage.domain import Actor
from nanobatch_storage.errors import BlobsUnavailableError
from nanobatch_storage.settings import StorageSettings
from nanobatch_storage.stats import CoolingKey, TaskOut
from nanobatch_storage.wiring import blobs_of

_PATIENCE = timedelta(minutes=5)
_GRACE = timedelta(minutes=1)
_MOST_NAMED = 3
_ADMIN = Actor(str(uuid.UUID(int=0)), admin=True)


class _RollBack(Exception):  # noqa: N818  # no error: how a transaction is told to leave nothing
    pass


async def examine_storage(settings: StorageSettings) -> Sequence[Finding]:
    """Return the findings.

    Nothing is changed: what is written to the database is rolled back, what is written beside the pictures removed.
    """
    pictures = await _pictures(settings)
    url = make_url(settings.database_url)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite":
        file = await examine("database", shown, lambda: _file(url.database or ""), advice=_FOLDER)
        if file.verdict is not Verdict.OK:
            return [file, pictures]
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings.database_url))
        reached = await examine(
            "database",
            shown,
            lambda: _database(database),
            advice="Start PostgreSQL, make room on its disk, or correct NANOBATCH_DATABASE_URL; "
            "`psql` with the same URL says more.",
        )
        if reached.verdict is not Verdict.OK:
            return [reached, *(skipped(name, "the database cannot be used") for name in _BEHIND), pictures]
        schema = await examine(
            "schema", shown, lambda: _schema(settings.database_url), advice="Run `nanobatch migrate`."
        )
        if schema.verdict is not Verdict.OK:
            return [reached, schema, *(skipped(name, "the schema is another") for name in _BEHIND[1:]), pictures]
        guarded = await examine("row security", shown, lambda: _row_security(database), advice="See docs/security.md.")
        stats = SqlStats(database)
        clock = await examine(
            "clock", shown, lambda: _clock(database), advice="Let all machines follow one time (NTP)."
        )
        queue = await examine("queue", shown, lambda: _queue(stats), advice="See `nanobatch admin stats`.")
        tasks = await examine(
            "tasks", shown, lambda: _tasks(stats, settings.lease), advice="See `nanobatch admin stats`."
        )
        return [reached, schema, guarded, clock, queue, tasks, pictures]


async def key_ids(settings: StorageSettings) -> set[str]:
    """Return the ids of the master keys that rows are sealed with. Raises what the database raises."""
    async with open_database(settings.database_url) as database:
        return await SqlStats(database).key_ids()


def _is_there(path: str) -> bool:
    return Path(path).exists()


async def _file(path: str) -> str:
    if not _is_there(path):  # before it is opened, which makes it
        advice = "Start nanobatch once to make it, or correct NANOBATCH_DATA_DIR or NANOBATCH_DATABASE_URL."
        raise ComplaintError("There is no such file.", advice)
    return "is there"


_BEHIND = ("schema", "row security", "clock", "queue", "tasks")
_FOLDER = "Correct NANOBATCH_DATA_DIR or NANOBATCH_DATABASE_URL; the folder opens to the user alone who runs nanobatch."


async def _database(database: Database) -> str:
    async def work(tx: Transaction) -> None:
        made = str(uuid.uuid4())
        row = {"id": made, "role": "CLIENT", "name": "nanobatch doctor", "create_time": tx.now, "disabled": True}
        await tx.connection.execute(users.insert(), [row])
        found = await tx.connection.execute(select(users.c.name).where(users.c.id == made))
        if found.scalar_one() != "nanobatch doctor":
            raise ComplaintError("What was written did not come back.", "Look at the database's log.")
        raise _RollBack

    async with database.read() as tx:
        await tx.connection.execute(select(1))
    try:
        await database.write(work)
    except _RollBack:
        return "written, read and rolled back"
    raise ComplaintError("A transaction was not rolled back.", "Look at the database's log.")


async def _schema(url: str) -> str:
    present, newest = await migrate.standing(url)
    if present and newest and present > newest:  # rolled back: the schema is ours and more
        return f"at {present}, of a later version; this one knows {newest}"
    if present != newest:
        raise ComplaintError(
            f"It is at {present or 'nothing'}, this version needs {newest}.",
            "Run `nanobatch migrate` (it is safe while others run), or use the version that the database was made by.",
        )
    return f"at {present}, the newest that this version knows"


async def _row_security(database: Database) -> str:
    if database.dialect.name == "sqlite":
        raise DoesNotApplyError("SQLite has none: the service alone keeps users apart")
    found = await net_sql.look(database)
    if found.ignores:
        raise ConcernError(
            f"PostgreSQL ignores it for the role {found.role}: the service alone keeps users apart.",
            "Let a role own the database that is neither SUPERUSER nor BYPASSRLS (docs/operations.md, The role of storage).",
        )
    if found.open_tables:
        raise ConcernError(
            f"It is off for {', '.join(found.open_tables)}: the service alone keeps users apart.",
            "Somebody has taken it away: ENABLE and FORCE ROW LEVEL SECURITY on each table.",
        )
    return f"holds in {len(net_sql.guarded())} tables"


async def _clock(database: Database) -> str:
    apart = abs(await database.now() - datetime.now(UTC))
    if apart > TOGETHER:
        raise ComplaintError(
            f"The database's clock and this machine's are {apart.total_seconds():.0f} s apart.",
            "Let all machines follow one time (NTP): expiry dates of tokens and picture addresses go by them.",
        )
    return f"{apart.total_seconds():.3f} s apart"


async def _pictures(settings: StorageSettings) -> Finding:
    async def work() -> str:
        parts = urlsplit(settings.blob_url)
        if parts.scheme == "file" and not _is_there(unquote(parts.path)):
            raise ComplaintError(
                "There is no such folder.", "Start storage once to make it, or correct NANOBATCH_BLOB_URL."
            )
        try:
            await blobs_of(settings).probe()
        except BlobsUnavailableError as error:
            raise ComplaintError(error.detail, advice) from error
        return "written, read and removed"

    advice = (
        "Make the bucket, and let the key read, write, list and delete in it; or correct NANOBATCH_BLOB_URL, "
        "AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY. A folder must belong to storage's user."
    )
    return await examine("pictures", settings.blob_url, work, advice=advice)


async def _queue(stats: SqlStats) -> str:
    found = await stats.queue(_ADMIN)
    waited = found.read_at - found.oldest_ready if found.oldest_ready is not None else timedelta(0)
    if found.expired:
        raise ComplaintError(
            f"{found.expired} results lie with generators that are gone.",
            "Start a generator: it takes them over. Its log says `storage.unreachable` where it does not get through.",
        )
    if waited > _PATIENCE and not found.in_flight:
        raise ComplaintError(
            f"{found.ready} results are ready, one for {waited.total_seconds() / 60:.0f} min, and nobody works.",
            "Start a generator, or see its log for `storage.unreachable`.",
        )
    if bad := found.paused.get("INVALID_KEY", 0):
        raise ComplaintError(
            f"{bad} executions are paused because their provider does not take their key.",
            "Nothing was paid for. Try the key at the provider's own site, then `nanobatch resume ID --api-key-env NAME`; "
            "if all keys fail at once, compare ENCRYPTION_KEY with its copy.",
        )
    parts = [f"{found.ready} ready, {found.later} later, {found.in_flight} in flight"]
    if found.paused:
        parts.append(f"{sum(found.paused.values())} executions paused")
    waited_for = [key for key in found.cooling if key.results]
    parts += [_cooling(key) for key in waited_for[:_MOST_NAMED]]
    if len(waited_for) > _MOST_NAMED:
        parts.append(f"{len(waited_for) - _MOST_NAMED} more keys are waited for")
    return "; ".join(parts)


def _cooling(key: CoolingKey) -> str:
    until = f"{key.until:%Y-%m-%d %H:%M:%S} UTC"
    return f"{key.results} wait for their key of {key.provider} {key.model} until {until} ({key.reason})"


async def _tasks(stats: SqlStats, lease: timedelta) -> str:
    """Say which tasks are out.

    The generator that asks for a task gives it up when it is older than a call may be; where that one has died, the next
    one does, a lease later. A task that is older still is one that nobody asks for.
    """
    found = await stats.queue(_ADMIN)
    late = [task for task in found.tasks if found.read_at - task.since > task.timeout + lease + _GRACE]
    shown = [_task(task, found.read_at) for task in (late or found.tasks)[:_MOST_NAMED]]
    if late:
        raise ComplaintError(
            f"{len(late)} of {found.tasks_out} tasks are out for longer than they may be: {'; '.join(shown)}.",
            "Nobody asks for them: start a generator, or see its log for `storage.unreachable`. Those of a run that is paused, "
            "or whose key waits, are asked for when it goes on; the first who does closes them as perhaps charged, and the "
            "prompt is called again. The provider knows a task by its id; `nanobatch cancel EXECUTION` gives it up.",
        )
    return "; ".join([f"{found.tasks_out} out", *shown])


def _task(task: TaskOut, now: datetime) -> str:
    age, limit = (f"{each.total_seconds():.0f} s" for each in (now - task.since, task.timeout))
    return f"{task.provider} {task.task_id} of execution {task.execution_id}, out for {age} of {limit}"
