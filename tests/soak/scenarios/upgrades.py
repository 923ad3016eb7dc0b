"""Scenario 40: the version before the newest migration at work, the schema migrated beneath it, then the new version.

Then this version on the schema of one after it, which storage is rolled back from. The version before cannot be had for that:
those in the history are older than the mending of storage that did not start on a newer schema.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

from processes import NANOBATCH, ROOT, bare_environment

from soak.ground import Ground, NotStartedError, Setup, packages
from soak.report import Report
from soak.scenarios.stops import loaded, stopped
from soak.scenarios.workers import create
from soak.stage import Stage, stage

_VERSIONS = "services/storage/nanobatch_storage/migrations/versions"


def version_before(folder: Path) -> Path:
    """Return a copy of the packages as they were before the newest migration came. Raises NotStartedError."""
    newest = max((ROOT / _VERSIONS).glob("[0-9]*.py")).name
    try:
        added = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", f"{_VERSIONS}/{newest}").decode().strip()
        files = _git("archive", f"{added}^", "services", "clients", "protos")
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotStartedError(f"the history has no version before {newest}: {error}") from error
    with tarfile.open(fileobj=io.BytesIO(files)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _git(*words: str) -> bytes:
    return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, check=True).stdout


_EXPANDS = '''"""What a later version could add, and this one knows nothing of."""

import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("executions", sa.Column("later_note", sa.String(64)))
    op.add_column("results", sa.Column("later_rank", sa.Integer, nullable=False, server_default="0"))
    op.create_table("later_notes", sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.String(64)))
    op.create_index("later_notes_by_text", "later_notes", ["text"])
'''


def version_after(folder: Path, tree: Path) -> Path:
    """Return a copy of the packages with a migration more, which expands the schema."""
    for name in ("services", "clients", "protos"):
        shutil.copytree(tree / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    newest = max((tree / _VERSIONS).glob("[0-9]*.py")).name.partition("_")[0]
    number = f"{int(newest) + 1:04}"
    (folder / _VERSIONS / f"{number}_later.py").write_text(_EXPANDS.format(number=number, before=newest))
    return folder


async def upgrades(ground: Ground, *, results: int = 300) -> Report:
    """From the version before to this one, then from this one to a version after and storage back again."""
    await _upgrade(ground, results)
    await _roll_back(ground, results)
    return ground.report


async def _roll_back(ground: Ground, results: int) -> None:
    """Storage of a later version, which has migrated, is replaced by this one and comes back, under load."""
    report = ground.report
    later = packages(version_after(ground.folder / "version-after", ground.tree or ROOT))
    now = packages(ground.tree) or {"PYTHONPATH": ""}
    setup = Setup(storages=2, generators=2, latency="uniform:1:3", lease_seconds=10, watchers=1)
    async with stage(ground, setup) as on:
        exits = []
        async with loaded(on, 10) as load:
            await create(on, results)
            load.execution = on.executions[0]
            old = version(on)
            exits.append(await migrated(on, later))
            report.hold(f"a later version migrates from {old} to {version(on)}", kept=version(on) > old)
            for packages_of in (later, now, later):
                done = on.final()
                for number in range(len(on.storages)):
                    exits.append((await load.creating(stopped(on.storages[number])))[0])
                    on.storages[number] = on.start_storage(number, **packages_of)
                    try:
                        await on.serving(on.storage_ports[number])
                    except NotStartedError as error:  # here that is a verdict
                        report.hold(f"storage starts on a later schema: {error}", kept=False)
                        return
                await on.when(lambda done=done: on.final() > done, within=240)
            await on.ended(within=240 + results)
        on.verdict(report, results=results + load.created, extra_calls_allowed=False)
        report.hold(
            f"{len(exits) - 1} storages replaced, back and again: exit codes {sorted(set(exits))}",
            kept=set(exits) == {0},
        )
        back = sum(on.log_of(f"s{number + 1}").count("database.is_newer") for number in range(len(on.storages)))
        report.hold(f"{back} starts on a newer schema", kept=back == len(on.storages))
        load.judge(report)


async def _upgrade(ground: Ground, results: int) -> None:
    """Two migrators at once under the version before, which goes on; then every process is replaced, some back again."""
    report = ground.report
    before = packages(version_before(ground.folder / "version-before"))
    # Processes of the new version look where they always do.
    after = packages(ground.tree) or {"PYTHONPATH": ""}
    setup = Setup(storages=2, generators=2, latency="uniform:1:3", lease_seconds=10, watchers=1, environment=before)
    async with stage(ground, setup) as on:
        async with loaded(on, 10) as load:
            await create(on, results)
            load.execution = on.executions[0]
            await on.when(lambda: on.final() >= results * 0.1, within=240)
            old = version(on)
            codes = await asyncio.gather(*(migrated(on, after) for _ in range(2)))
            new, done = version(on), on.final()
            report.hold(
                f"two migrators at once from {old} to {new}: exit codes {codes}", kept=codes == [0, 0] and new > old
            )
            await on.when(lambda: on.final() >= min(results, done + results * 0.1), within=240)
            report.hold(
                f"the version before goes on with the new schema: {on.final() - done} more", kept=on.final() > done
            )
            exits = []
            for number in range(len(on.storages)):
                exits.append((await load.creating(stopped(on.storages[number])))[0])
                on.storages[number] = on.start_storage(number, **after)
                await on.serving(on.storage_ports[number])
            # New gateway and generator, then the old ones again (a roll-back), then the new ones.
            for number, packages_of in ((0, after), (1, after), (0, before), (0, after)):
                exits.append((await load.creating(stopped(on.gateways[number])))[0])
                on.gateways[number] = on.start_gateway(number, **packages_of)
                await on.serving(on.gateway_ports[number])
                one = on.generators[number]
                assert one.process is not None
                exits.append((await stopped(one.process))[0])
                one.start(**packages_of)
            await on.ended(within=240 + results)
        on.verdict(report, results=results + load.created, extra_calls_allowed=False)
        report.hold(f"{len(exits)} processes replaced: exit codes {sorted(set(exits))}", kept=set(exits) == {0})
        load.judge(report)


def version(on: Stage) -> str:
    ((number,),) = on.rows("select version_num from alembic_version")
    return str(number)


async def migrated(on: Stage, packages_of: dict[str, str]) -> int:
    """Run ``nanobatch migrate``; returns its exit code."""
    environment = bare_environment(on.folder) | on.cluster._environment | packages_of
    with (on.folder / "migrate.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(NANOBATCH, "migrate", env=environment, stdout=log, stderr=log)
    return await asyncio.wait_for(process.wait(), 90)
