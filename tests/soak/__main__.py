"""``make soak [SCENARIO=1,2] [SEED=n] [LONG=1] [TWIN=name]``: the scenarios, each with its figures, its seed and its n."""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from postgres_server import private_postgres
from processes import ROOT

from nanobatch_runtime import logs
from soak.ground import Ground, NotStartedError
from soak.report import Report
from soak.scenarios import SCENARIOS
from soak.twins import TWINS, make

TWIN_PATIENCE = 90.0
"""Seconds after which a broken copy counts as stopped: that is a verdict, too."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description="Faults on the real product.")
    parser.add_argument("--scenario", default="", help="numbers, commas between; none: all")
    parser.add_argument("--twin", default="", help="break the product on purpose: all, or names with commas between")
    parser.add_argument("--seed", type=int, help="repeat a run; none: another one each time")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--long", dest="size", action="store_const", const="long", default="", help="1,000 kills and 100 freezes"
    )
    size.add_argument("--short", dest="size", action="store_const", const="short", help="a minute or two each")
    parser.add_argument("--tree", type=Path, help="a copy of the repository whose packages are run; none: this one")
    parser.add_argument("--keep", type=Path, help="a folder for logs and recordings, kept")
    arguments = parser.parse_args()
    names = [name for name in arguments.scenario.split(",") if name] or list(SCENARIOS)
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    logs.configure("error")  # what is not the product's processes' own is quiet
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # so that everything is ended on the way out
    seed = arguments.seed if arguments.seed is not None else random.randrange(10_000)
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="nanobatch-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with private_postgres(durable=True) as postgres:
            ground = Ground(postgres, folder, seed, arguments.tree)
            if arguments.twin:
                names = list(TWINS) if arguments.twin == "all" else arguments.twin.split(",")
                broken = [name for name in names if not _went_red(name, ground)]
            else:
                broken = [name for name in names if not _ran(name, ground, arguments.size)]
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    what = "twins went red" if arguments.twin else "scenarios hold"
    print(f"\n{len(names) - len(broken)} of {len(names)} {what}" + (f"; not so: {', '.join(broken)}" if broken else ""))
    return 1 if broken else 0


def _went_red(name: str, ground: Ground) -> bool:
    """Run the scenario of a twin on a broken copy; it has to find that mistake, not just anything."""
    twin = TWINS[name]
    print(f"\ntwin {name}: {twin.mistake}", flush=True)
    with tempfile.TemporaryDirectory(prefix="nanobatch-twin-") as copy:
        tree = make(name, ground.tree or ROOT, Path(copy))
        report = _report(twin.scenario, replace(ground, tree=tree, patience=TWIN_PATIENCE), twin.size)
    found = twin.found_in(report)
    if found:
        print(f"   went red, as it must: {found[:300]}", flush=True)
    elif report.flaws:
        print(f"   RED FOR ANOTHER REASON: nothing says {twin.sign!r}", flush=True)
    else:
        print("   STAYED GREEN: the scenario does not see it", flush=True)
    return bool(found)


def _ran(name: str, ground: Ground, size: str) -> bool:
    report = _report(name, ground, size)
    return not report.flaws and (not report.late or size == "short")


def _report(name: str, ground: Ground, size: str) -> Report:
    """Run a scenario and print what it says."""
    scenario = SCENARIOS[name]
    print(f"\n{name}. {scenario.title} (seed {ground.seed})", flush=True)
    started, cpu = time.monotonic(), _cpu()
    try:
        report = asyncio.run(scenario(ground, size))
    except NotStartedError as error:
        sys.exit(f"   {error}: no verdict")
    for line in report.lines:
        print(f"   {line}")
    verdict = "BROKEN" if report.flaws else "LATE" if report.late else "HOLDS"
    print(f"   {verdict} after {time.monotonic() - started:.0f} s, {_cpu() - cpu:.0f} s of CPU", flush=True)
    return report


def _cpu() -> float:
    """Return the seconds of CPU that this process and those that it has ended have used: what a busy machine cannot blur."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    sys.exit(main())
