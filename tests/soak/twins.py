"""Broken twins: copies of the product with one mistake each, which the named scenario must find.

A scenario counts only when its twin went red. Each edit names the exact text that it replaces: where the source has moved
on, making the twin fails loudly, so that nothing passes because nothing was broken.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from soak.report import Report

_STORAGE = "services/storage/nanobatch_storage/"
_GENERATOR = "services/generator/nanobatch_generator/"
_GATEWAY = "services/gateway/nanobatch_gateway/"
_RPC = "services/runtime/nanobatch_runtime/rpc/"
_LEDGER = _STORAGE + "adapters/ledger_sql.py"
_FENCE = _STORAGE + "adapters/fence_sql.py"
_LEASES = _STORAGE + "adapters/leases_sql.py"
_TAKING = _STORAGE + "adapters/taking_sql.py"
_EXTENDING = _STORAGE + "adapters/extending_sql.py"
_PICKING = _STORAGE + "adapters/picking_sql.py"
_CLOSING = _STORAGE + "adapters/closing_sql.py"


@dataclass(frozen=True)
class Edit:
    """One replacement; the old text must be there exactly once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Twin:
    """A mistake, and the scenario that must find it."""

    mistake: str
    scenario: str
    sign: str
    """What the finding says, as a regular expression: red for another reason proves nothing."""
    edits: tuple[Edit, ...]
    size: str = "commit"

    def found_in(self, report: Report) -> str | None:
        """Return what the scenario says of this very mistake; None where it says nothing of it."""
        return next((line for line in report.found if re.search(self.sign, line)), None)


TWINS: dict[str, Twin] = {
    "complete-unfenced": Twin(
        "complete without the test of the lease",
        "2",
        r"completed \d+ times|'complete': False|master pictures|extra calls have no fault",
        (
            Edit(
                _FENCE,
                "        if result.lease_id != lease.lease_id and not told_before:\n            raise LeaseLostError\n",
                "",
            ),
            Edit(
                _LEDGER,
                '    if row.charged is not None and row.outcome != "COMPLETED":\n        return LeaseLostError()\n',
                "",
            ),
            Edit(
                _LEDGER,
                "    if row.charged is None and row.current_lease_id != lease.lease_id:\n        return LeaseLostError()\n",
                "",
            ),
            Edit(
                _CLOSING,
                "    if attempt is None or attempt.charged is None:\n        return None\n",
                '    if attempt is None or (completed and attempt.outcome != "COMPLETED"):\n        return None\n',
            ),
        ),
    ),
    "extend-unfenced": Twin(
        "extend without it: a late owner prolongs the new one's lease",
        "2",
        r"'extend': False",
        (
            Edit(_EXTENDING, '    results.c.lease_id.in_(bindparam("lease_ids", expanding=True)),\n', ""),
            Edit(
                _EXTENDING,
                "    held = {LeaseRef(row.id, row.lease_id) for row in await database.change(_EXTEND, names)}\n",
                "    known = {row.id for row in await database.change(_EXTEND, names)}\n"
                "    held = {ref for refs in asked for ref in refs if ref.result_id in known}\n",
            ),
        ),
    ),
    "commit-anew": Twin(
        "a commit whose answer was lost is taken for one that failed, and everything is begun anew",
        "3",
        r"completed \d+ times|went from COMPLETED|ended \d+ times|calls more than results",
        (
            # The look before the bytes recognises it, too.
            Edit(_LEDGER, "ResultState(row.state) if row.charged else None)\n", "None)\n"),
            Edit(
                _CLOSING,
                "    if told is not None or attempt is None:\n        return Completed(",
                "    if told is ResultState.COMPLETED and not execution.is_final:\n"
                "        give_back(execution, result)\n"
                "        result.ready_at = tx.now\n"
                "    if told is not None or attempt is None:\n        return Completed(",
            ),
            Edit(
                _CLOSING,
                "    eased = await _eased(tx, [attempt for attempt, _ in closed])\n",
                "    await write(tx, held)\n    eased = await _eased(tx, [attempt for attempt, _ in closed])\n",
            ),
        ),
    ),
    "heart-on-the-loop": Twin(
        "the heart beats only while the loop runs",
        "21",
        r"extra calls, [1-9]\d* leases lost",
        (
            Edit(
                _GENERATOR + "heartbeat.py",
                "        loop = asyncio.get_running_loop()\n        ended",
                "        loop = self._loop = asyncio.get_running_loop()\n        ended",
            ),
            Edit(
                _GENERATOR + "heartbeat.py",
                "                gone = self._extender.extend(",
                "                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result()\n"
                "                gone = self._extender.extend(",
            ),
        ),
    ),
    "crash-is-proof": Twin(
        "three crashes fail a prompt, whoever else was in the process",
        "20",
        r"innocents that did not become pictures: \[\(",
        (
            Edit(_STORAGE + "policy.py", "SUSPECT_CRASHES = 2\n", "SUSPECT_CRASHES = 1000\n"),
            Edit(_STORAGE + "policy.py", "MAX_CRASHES = 10\n", "MAX_CRASHES = 2\n"),
        ),
    ),
    "one-revision": Twin(
        "one revision for all rows of a bulk change",
        "13",
        r"was last told|came after|a revision of its own",
        (
            Edit(
                _STORAGE + "adapters/control_sql.py",
                "        execution.move(result, ResultState.CANCELLED)\n    await rows.save(tx, found)\n",
                "        execution.move(result, ResultState.CANCELLED)\n"
                "    for result in found:\n        result.revision = execution.revision\n    await rows.save(tx, found)\n",
            ),
        ),
    ),
    "revision-from-a-sequence": Twin(
        "revisions come from a sequence of which each process has a block in stock, as a database's sequences with a cache",
        "13",
        r"a watcher was refused|was last told|came after",
        (
            Edit(
                _STORAGE + "domain.py",
                '        """Return the next revision, for one changed row."""\n        self.revision += 1\n',
                '        """Return the next revision, for one changed row."""\n        self.revision = next(_BLOCK)\n',
            ),
            Edit(
                _STORAGE + "domain.py",
                "from __future__ import annotations\n",
                "from __future__ import annotations\n\nimport itertools\nimport os\n\n"
                "_BLOCK = itertools.count(1 + os.getpid() % 1000 * 1_000_000)\n",
            ),
        ),
    ),
    "hints-only": Twin(
        "a watch that hears hints and never looks into the database by itself",
        "12",
        r"watchers were not told of the end|was last told",
        (Edit(_STORAGE + "changes.py", "_REPOLL = (1.0, 2.0)\n", "_REPOLL = (3600.0, 3600.0)\n"),),
    ),
    "lease-in-limit": Twin(
        "what waits is leased by UPDATE ... WHERE id IN (SELECT ... LIMIT), which no plan has to keep",
        "26",
        r"leased [1-9]\d* for 7 slots",
        (
            Edit(
                _PICKING,
                "_PICK_EACH = Prepared(_picking_each())\n",
                "_PICK_WAITING = (\n"
                "    update(results)\n"
                "    .where(\n"
                "        results.c.id.in_(\n"
                "            select(results.c.id)\n"
                '            .where(results.c.execution_id == bindparam("pick_execution_id"), PENDING, UNSUSPECTED)\n'
                '            .where(results.c.ready_at <= bindparam("until"), _FROM_FIRST)\n'
                "            .order_by(*_IN_ORDER)\n"
                '            .limit(bindparam("count"))\n'
                "            .with_for_update(key_share=True, skip_locked=True)\n"
                "        )\n"
                "    )\n"
                "    .values(ready_at=results.c.ready_at)\n"
                "    .returning(results)\n"
                ")\n",
            ),
            Edit(_PICKING, 'tx.connection.dialect.name == "postgresql"', "False"),
            Edit(_PICKING, '{**names, "execution_id": one.', '{**names, "pick_execution_id": one.'),
            Edit(_PICKING, "literal_column, select, true\n", "literal_column, select, true, update\n"),
            # More than there are places for would be let go: here it is leased.
            Edit(_TAKING, "self.waiting[: max(places, 0)]", "self.waiting"),
            # What is leased too much would not be dealt to anybody: here the one who asks gets it all, and it is counted.
            Edit(_LEASES, "hands = dealt_among(some, taken.leases)\n", "hands = [list(taken.leases)]\n"),
        ),
    ),
    "locks-swapped": Twin(
        "complete locks the result before its execution",
        "15",
        r"[1-9]\d* deadlocks",
        (
            Edit(
                _FENCE,
                "    found = await tx.connection.execute(_LOCK_EXECUTIONS, names)\n",
                "    leases = [lease.lease_id for lease in known]\n"
                '    await tx.connection.execute(_LOCK_RESULTS, {**names, "lease_ids": leases})\n'
                "    found = await tx.connection.execute(_LOCK_EXECUTIONS, names)\n",
            ),
        ),
        size="",  # a deadlock takes two at the same moment
    ),
    "unknown-is-transient": Twin(
        "a connection lost after sending counts as one that was never sent",
        "18",
        r"a cut call is repeated once|cut twice ends after two calls",
        (
            Edit(
                _GENERATOR + "providers/gemini_network.py",
                '        FailureClass.UNKNOWN,\n        "CONNECTION_LOST",',
                '        FailureClass.TRANSIENT,\n        "CONNECTION_LOST",',
            ),
        ),
    ),
    "connections-never-age": Twin(
        "connections between services never end by themselves, and so names are never looked up again",
        "scale",
        r"new streams 100%",
        (
            Edit(
                _RPC + "options.py", "CONNECTION_AGE = timedelta(seconds=30)\n", "CONNECTION_AGE = timedelta(hours=1)\n"
            ),
        ),
        size="short",
    ),
    "own-limits": Twin(
        "while Redis is away each gateway lets the whole allowance through",
        "28",
        r"a part without Redis: (1\.[5-9]|[2-9])",
        (
            Edit(
                _GATEWAY + "limits.py",
                "        return max(1, allowance // max(self._gateways, 2 * (self._gateways - 1)))\n",
                "        return allowance\n",
            ),
        ),
    ),
    "patient-with-stalled": Twin(
        "a reader that reads nothing is never cut",
        "14",
        r"0 of \d+ that read nothing were cut",
        (
            Edit(
                _GATEWAY + "servicers/writing.py",
                "STALL_LIMIT = timedelta(seconds=30)\n",
                "STALL_LIMIT = timedelta(hours=1)\n",
            ),
        ),
        size="short",
    ),
    "storages-own-clock": Twin(
        "storage counts leases and waiting by the clock of its own machine",
        "22",
        r"[1-9]\d* extra calls|not within|not all final",
        (
            Edit(
                _STORAGE + "adapters/database.py",
                '(SystemClock() if engine.dialect.name == "sqlite" else None)',
                "SystemClock()",
            ),
        ),
        size="short",
    ),
    "no-drain": Twin(
        "SIGTERM ends calls at once",
        "9",
        r"calls more than results",
        (
            Edit(
                _GENERATOR + "worker.py",
                "        deadline = time.monotonic() + grace.total_seconds()\n        unstarted",
                "        deadline = time.monotonic()\n        unstarted",
            ),
        ),
    ),
}


class TwinOutdatedError(Exception):
    """The source has moved on: the twin is to be written anew."""


def make(name: str, tree: Path, into: Path) -> Path:
    """Copy the packages of ``tree`` and make the mistake. Raises TwinOutdatedError."""
    for part in ("services", "clients", "protos"):
        shutil.copytree(tree / part, into / part, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in TWINS[name].edits:
        file = into / edit.file
        text = file.read_text()
        if text.count(edit.old) != 1:
            raise TwinOutdatedError(f"{name}: {edit.file} has {text.count(edit.old)} times, not once:\n{edit.old}")
        file.write_text(text.replace(edit.old, edit.new))
    return into
