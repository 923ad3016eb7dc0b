"""Scenario 40: the version before the newest migration at work, the schema migrated beneath it, then the new version."""

from __future__ import annotations

import asyncio
import io
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


async def upgrade_under_load(ground: Ground, *, results: int = 300) -> Report:
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
                exits.append((await stopped(on.storages[number]))[0])
                on.storages[number] = on.start_storage(number, **after)
                await on.serving(on.storage_ports[number])
            # New gateway and generator, then the old ones again (a roll-back), then the new ones.
            for number, packages_of in ((0, after), (1, after), (0, before), (0, after)):
                exits.append((await stopped(on.gateways[number]))[0])
                on.gateways[number] = on.start_gateway(number, **packages_of)
                await on.serving(on.gateway_ports[number])
                one = on.generators[number]
                assert one.process is not None
                exits.append((await stopped(one.process))[0])
                one.start(**packages_of)
            await on.ended(within=240 + results)
        on.verdict(report, results=results, extra_calls_allowed=False)
        report.hold(f"{len(exits)} processes replaced: exit codes {sorted(set(exits))}", kept=set(exits) == {0})
        load.judge(report)
    return report


def version(on: Stage) -> str:
    ((number,),) = on.rows("select version_num from alembic_version")
    return str(number)


async def migrated(on: Stage, packages_of: dict[str, str]) -> int:
    """Run ``nanobatch migrate``; returns its exit code."""
    environment = bare_environment(on.folder) | on.cluster._environment | packages_of
    with (on.folder / "migrate.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(NANOBATCH, "migrate", env=environment, stdout=log, stderr=log)
    return await asyncio.wait_for(process.wait(), 90)
