"""Scenario 22: the clock of a generator, a gateway, storage and PostgreSQL is stepped in the middle of the work.

Debian's libfaketime, loaded into each process before everything else, reads a file for what to add to the system's time.
The monotonic clock goes on as it does when an administrator, or NTP, sets the time of a running machine.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from postgres_server import private_postgres
from processes import ROOT, free_port

from nanobatch.gateway.v1 import execution_pb2
from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch_client import Client
from nanobatch_client.errors import NanobatchError
from soak.ground import NotStartedError
from soak.recorded import marker
from soak.report import Report
from soak.scenarios.workers import create
from soak.stage import Ground, Setup, Stage, stage

_HOUR, _DAY = 3600, 86_400
_STEPS = (_HOUR, -_HOUR, -_DAY, 0)
_HOURS = {1, -1, -24, 0}
_CLOSE_SECONDS = 2.0
_TOKEN_LASTS = timedelta(minutes=45)
_START_SECONDS = 60


class Clock:
    """What one process takes the time to be."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self._file.write_text("+0\n")
        self._file.chmod(0o644)  # PostgreSQL runs as somebody else

    def step(self, seconds: int) -> None:
        """Set it so much before or after the true time; its process reads this whenever it asks for the time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.chmod(0o644)
        new.replace(self._file)


async def clocks(ground: Ground, *, each: int = 20, back: int = 15) -> Report:
    """Each clock is stepped by an hour forward and back and a day back, ``each`` results after the other.

    PostgreSQL's, by which all waiting and leasing goes, and tokens end, an hour forward, then ``back`` seconds backward, then
    an hour and a day backward: what a dead generator held waits for as long, storage raises an alarm, and once the clock is
    right all goes on.
    """
    report = ground.report
    library = _library()
    folder = ground.folder / f"clocks-{time.monotonic_ns()}"
    folder.mkdir()
    ground.folder.chmod(0o711)  # PostgreSQL runs as somebody else, and has to find its own
    names = ("generator", "gateway", "storage", "postgres")
    clocks = {name: Clock(library, folder / name) for name in names}
    with _swept(), private_postgres(durable=True, environment=clocks["postgres"].environment) as postgres:
        setup = Setup(generators=2, lease_seconds=4, watchers=2, latency="uniform:0.5:1", slots=4)
        places = setup.generators * setup.slots
        async with stage(replace(ground, postgres=postgres), setup) as on:
            doors = await _under(on, clocks)
            locked = await token_gateways(on, clocks["gateway"])
            shown, ending = [await locked.token() for _ in range(2)]
            links: list[str] = []
            told: Counter[str] = Counter()
            for name in names[:-1]:
                await create(on, len(_STEPS) * each)  # so that each process has work as its clock is stepped
                await on.when(on.generators[0].has_worked)
                for seconds in _STEPS:
                    clocks[name].step(seconds)
                    await _moves(on, each // 2)
                    if name == "gateway":
                        links.append(await _link(on))
                        told.update(await locked.ask(shown))
            await on.ended(within=180)
            extra, wrong = _extra(on), on.rows("select count(*) from attempts where end_time < start_time")[0][0]
            report.hold(
                f"{len(_STEPS)} steps each of {', '.join(names[:-1])}: {extra} extra calls, "
                f"{wrong} calls that ended before they began",
                kept=extra == wrong == 0,
            )
            opened = Counter([await asyncio.to_thread(_opens, link, door) for link in links for door in doors])
            report.hold(
                f"addresses of pictures that were signed meanwhile, at both gateways: {dict(opened)}",
                kept=set(opened) == {200},
            )
            report.hold(
                f"a token for {_TOKEN_LASTS} meanwhile, at two gateways: {dict(told)}", kept=told.keys() == {"OK"}
            )
            for name, log in (("generator", "g1"), ("gateway", "w1"), ("storage", "s1")):
                hours = _hours(on.log_of(log))
                report.hold(f"the {name} went by a clock that is off by hours: {sorted(hours)}", kept=hours >= _HOURS)
            await _postgres(on, report, clocks["postgres"], back, each)
            more = _extra(on) - extra
            report.hold(
                f"PostgreSQL's clock an hour forward: {more} extra calls, {places} places for calls",
                kept=more <= places,
            )
            over = await locked.ask(ending)
            await _far_back(on, report, clocks["postgres"], _HOUR, each)
            again = await locked.ask(ending)
            report.hold(
                f"a token that PostgreSQL's clock takes to be over: {over}; and when that is right again: {again}",
                kept=over == ["UNAUTHENTICATED"] * 2 and again == ["OK"] * 2,
            )
            await _far_back(on, report, clocks["postgres"], _DAY, each)
            # How soon leases come back is told above: the database's times say nothing of it where they were stepped.
            on.verdict(report, failures_allowed=0, recovery_promised=None)
    report.none_of((len(names) - 1) * len(_STEPS) + 7, "steps")
    return report


async def _postgres(on: Stage, report: Report, clock: Clock, back: int, results: int) -> None:
    """Step the clock of all leases with calls out, forward, then backward."""
    await create(on, 3 * results)
    await _moves(on, results)
    event = on.note("outage")  # what is out now may be called anew: all its leases are over at once
    clock.step(_HOUR)
    ((shown,),) = on.rows("select extract(epoch from clock_timestamp())::float8")
    ahead = shown - time.time()
    report.hold(f"PostgreSQL went by a clock that is {ahead:.0f} s ahead", kept=abs(ahead - _HOUR) < _CLOSE_SECONDS)
    event["until"] = time.monotonic() + on.setup.lease_seconds
    await _moves(on, results)
    clock.step(_HOUR - back)
    began = time.monotonic()
    await create(on, 1)
    await on.ended(within=180)
    took, limit = time.monotonic() - began, back + 2 * on.setup.lease_seconds + 10
    report.timely(
        f"{back} s backward: all has ended {took:.1f} s later, {limit:.0f} s are promised", kept=took <= limit
    )


async def _far_back(on: Stage, report: Report, clock: Clock, seconds: int, results: int) -> None:
    """Set the clock of all leases back as a generator dies, and right again once that was noticed."""
    clock.step(0)  # nothing is out
    await on.when(lambda: _are_together(on.log_of("s1")))  # it was told when they were apart before
    await create(on, results)
    victim = on.generators[0]
    await on.when(victim.is_busy)
    event = on.note("outage")  # what the dead one had is called anew once the clock is right
    victim.kill()
    clock.step(-seconds)
    await on.when(lambda: any(abs(ahead + seconds) < _CLOSE_SECONDS for ahead in _alarms(on.log_of("s1"))))
    await on.when(lambda: not sum(on.provider.out().values()))
    waiting = on.counts().get("PENDING", 0) + on.counts().get("PROCESSING", 0)
    late = await on.create(1)
    await on.when(lambda: on.rows(f"select state from results where execution_id = '{late}'") == [("COMPLETED",)])
    report.hold(
        f"{seconds // _HOUR} h backward as a generator dies: an alarm was raised, {waiting} results waited, a new one did not",
        kept=waiting > 0,
    )
    clock.step(0)
    began = time.monotonic()
    event["until"] = began + on.setup.lease_seconds
    await on.ended(within=180)
    took, limit = time.monotonic() - began, 2 * on.setup.lease_seconds + 10
    report.timely(
        f"the clock was set right: all has ended {took:.1f} s later, {limit:.0f} s are promised", kept=took <= limit
    )
    victim.start()


def _are_together(log: str) -> bool:
    """Whether storage has told last that its clock and the database's agree."""
    return log.rfind("clocks.together") > log.rfind("clocks.apart")


def _alarms(log: str) -> list[float]:
    return [float(found) for found in re.findall(r'"database_ahead_seconds": (-?[0-9.]+)', log)]


def _hours(log: str) -> set[int]:
    """Return by how many hours the times in a log are off; it was written within the last few minutes."""
    told = (datetime.fromisoformat(found) for found in re.findall(r'"timestamp": "([^"]+)"', log))
    return {round((one.timestamp() - time.time()) / _HOUR) for one in told}


async def _moves(on: Stage, count: int) -> None:
    """Wait until so many more are final, or all."""
    before = on.final()
    await on.when(lambda: on.final() >= before + count or not on.counts().keys() & {"PENDING", "PROCESSING"})


def _extra(on: Stage) -> int:
    calls = Counter(marker(call["prompt"]) for call in on.provider.calls())
    return sum(count - 1 for count in calls.values())


class TokenGateways:
    """Two gateways that ask for tokens. Made by :func:`token_gateways`."""

    def __init__(self, targets: list[str], admin: str) -> None:
        self._targets, self._admin = targets, admin

    async def token(self) -> str:
        """Make a token that lasts for less than the hour that clocks are stepped by."""
        async with Client(self._targets[0], token=self._admin) as client:
            return (await client.create_token(expire_time=datetime.now(UTC) + _TOKEN_LASTS)).secret

    async def ask(self, token: str) -> list[str]:
        """Show a token at both; returns what they say."""
        answers = []
        for target in self._targets:
            async with Client(target, token=token) as client:
                try:
                    await client.who_am_i()
                    answers.append("OK")
                except NanobatchError as error:
                    answers.append(error.code)
        return answers


async def token_gateways(on: Stage, clock: Clock) -> TokenGateways:
    """Start them, the first under the clock."""
    admin, targets = secrets.token_hex(16), []
    for name, own in (("t1", clock.environment), ("t2", {})):
        port = free_port()
        targets.append(f"127.0.0.1:{port}")
        mode = {"NANOBATCH_AUTH": "token", "NANOBATCH_ADMIN_TOKEN": admin, "NANOBATCH_GATEWAY_GRPC": targets[-1]}
        on.cluster.gateway(name, **mode, **own)
        await on.serving(port)
    return TokenGateways(targets, admin)


async def _link(on: Stage) -> str:
    """Have the gateway whose clock is stepped sign the address of a picture."""
    states = [execution_pb2.RESULT_STATE_COMPLETED]
    request = pb.ListResultsRequest(execution_id=on.executions[0], states=states, page_size=1)
    answer = await on.stub(0).ListResults(request, timeout=15)
    return str(answer.results[0].image_url)


def _opens(link: str, door: str) -> int:
    parts = urlsplit(link)
    try:
        with urllib.request.urlopen(urlunsplit(parts._replace(netloc=door)), timeout=15) as answer:  # noqa: S310  # ours
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@contextmanager
def _swept() -> Iterator[None]:
    """Leave nothing behind: what a process under libfaketime has in shared memory stays there where it was killed."""
    try:
        yield
    finally:
        for place in Path("/dev/shm").glob("*faketime_s*_*"):  # noqa: S108  # where it puts them
            if not Path(f"/proc/{place.name.rpartition('_')[2]}").exists():
                place.unlink(missing_ok=True)


def _library() -> Path:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        subprocess.run(
            ["bash", "-c", "source scripts/apt.sh && apt_or_say libfaketime libfaketime"], check=False, cwd=ROOT
        )
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise NotStartedError("libfaketime is not there (apt-get install libfaketime)")
    return found[0]


async def _under(on: Stage, clocks: dict[str, Clock]) -> list[str]:
    """Start a generator, both gateways and the storage anew, with clocks; returns where the gateways speak HTTP."""
    debug = {"NANOBATCH_LOG_LEVEL": "debug"}  # so that each tells the time often
    victim, doors = on.generators[0], [f"127.0.0.1:{free_port()}" for _ in on.gateways]
    for process in (victim.process, *on.gateways, on.storages[0]):
        process.terminate()
        await asyncio.to_thread(process.wait, _START_SECONDS)
    on.storages[0] = on.start_storage(0, **debug, **clocks["storage"].environment)
    for number, door in enumerate(doors):
        own = {} if number else clocks["gateway"].environment
        on.gateways[number] = on.start_gateway(number, NANOBATCH_GATEWAY_HTTP=door, **own)
    victim.start(**debug, **clocks["generator"].environment)
    await on.ready()
    return doors
