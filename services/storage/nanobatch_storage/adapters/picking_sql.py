"""Picking what waits: the results of several executions that may be leased now are locked, in the prompts' order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, Integer, Select, bindparam, column, func, literal_column, select, true
from sqlalchemy.dialects.postgresql import ARRAY

from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.database import Transaction
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.tables import PENDING, PROCESSING, UtcDateTime, results
from nanobatch_storage.domain import Execution, Result
from nanobatch_storage.policy import SUSPECT_CRASHES, is_suspect

# Suspects wait until somebody asks who has a process to run them alone in; the others pass them by.
UNSUSPECTED = results.c.crashes < bindparam("crashes_below")
_ANY_CRASHES = 2**31 - 1
_UNTIL: BindParameter[datetime] = bindparam("until", type_=UtcDateTime)
_OF_EXECUTION = results.c.execution_id == bindparam("execution_id")
_FROM_FIRST = results.c.batch_index >= bindparam("first")
_IN_ORDER = (results.c.batch_index, results.c.variation)


def _picking(count: Any, conditions: Sequence[Any], order: Sequence[Any]) -> Select[Any]:
    # The rows picked are locked and stay picked: unlike UPDATE ... IN (SELECT ... LIMIT), no plan can take more of them.
    ready = select(results).where(results.c.ready_at <= _UNTIL, *conditions).order_by(*order).limit(count)
    return ready.with_for_update(key_share=True, skip_locked=True)


def _picking_each() -> Select[Any]:
    """Pick for all executions of three lists at once."""
    ids, integers = ARRAY(results.c.execution_id.type), ARRAY(Integer)
    columns = column("execution_id", results.c.execution_id.type), column("first", Integer), column("count", Integer)
    lists = (
        bindparam("execution_ids", type_=ids),
        bindparam("firsts", type_=integers),
        bindparam("counts", type_=integers),
    )
    wanted = func.unnest(*lists).table_valued(*columns, name="wanted").render_derived()
    conditions = (
        results.c.execution_id == wanted.c.execution_id,
        PENDING,
        UNSUSPECTED,
        results.c.batch_index >= wanted.c.first,
    )
    picked = _picking(wanted.c.count, conditions, _IN_ORDER).lateral("picked")
    return select(picked).select_from(wanted.join(picked, true()))


# One statement per index, each an ordered range of it: lost leases, oldest first, and what waits, in the prompts' order.
_PICK_LOST = Prepared(_picking(bindparam("count"), (_OF_EXECUTION, PROCESSING), [results.c.ready_at]))
_PICK_WAITING = Prepared(_picking(bindparam("count"), (_OF_EXECUTION, PENDING, UNSUSPECTED, _FROM_FIRST), _IN_ORDER))
_PICK_EACH = Prepared(_picking_each())
_FIRST_PENDING = Prepared(
    select(results.c.batch_index)
    .where(_OF_EXECUTION, PENDING, _FROM_FIRST)
    .order_by(*_IN_ORDER)
    .limit(literal_column("1"))
)
_STEP = 16
"""After each so many prompts of an execution it is looked which of them is the first that still waits."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """So many results of an execution, and none before ``first``."""

    execution_id: str
    first: int
    count: int


def crashes_below(suspects: int) -> int:
    """Return the parameter of :data:`UNSUSPECTED`: all results count as unsuspected where suspects may be taken."""
    return _ANY_CRASHES if suspects > 0 else SUSPECT_CRASHES


async def lost(tx: Transaction, execution_id: str, count: int, until: datetime) -> list[Result]:
    """Lock leased results of an execution whose lease had run out by ``until``."""
    names = {"execution_id": execution_id, "count": count, "until": until}
    return [rows.result_from(row) for row in await tx.connection.execute(_PICK_LOST, names)]


async def waiting(tx: Transaction, wanted: Sequence[Wanted], suspects: int) -> dict[str, list[Result]]:
    """Lock waiting results, by execution, at most ``suspects`` suspects among them."""
    found = await _waiting(tx, wanted, suspects)
    if suspects <= 0 or sum(is_suspect(result) for picked in found.values() for result in picked) <= suspects:
        return found
    # Rare: more of them than may be taken would stand in the places of others. One execution after the other, then.
    for one in wanted:
        found |= await _waiting(tx, [one], suspects)
        suspects -= sum(map(is_suspect, found[one.execution_id]))
    return found


async def _waiting(tx: Transaction, wanted: Sequence[Wanted], suspects: int) -> dict[str, list[Result]]:
    found = await _pick(tx, wanted, suspects)
    # The version before has brought something back below.
    below = [Wanted(one.execution_id, 0, one.count) for one in wanted if one.first > 0 and not found[one.execution_id]]
    return {**found, **await _pick(tx, below, suspects)} if below else found


async def _pick(tx: Transaction, wanted: Sequence[Wanted], suspects: int) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {one.execution_id: [] for one in wanted}
    names = {"until": tx.now, "crashes_below": crashes_below(suspects)}
    if tx.connection.dialect.name == "postgresql":  # one trip for all of them
        names |= {
            "execution_ids": [one.execution_id for one in wanted],
            "firsts": [one.first for one in wanted],
            "counts": [one.count for one in wanted],
        }
        for row in await tx.connection.execute(_PICK_EACH, names):
            found[row.execution_id].append(rows.result_from(row))
        for picked in found.values():
            picked.sort(key=lambda result: (result.batch_index, result.variation))
        return found
    for one in wanted:
        each = {**names, "execution_id": one.execution_id, "first": one.first, "count": one.count}
        found[one.execution_id] = [rows.result_from(row) for row in await tx.connection.execute(_PICK_WAITING, each)]
    return found


async def note_first(tx: Transaction, execution: Execution, picked: Sequence[Result]) -> None:
    """Keep an execution's first waiting prompt up to date, once in a while: it is found at the price of a statement."""
    if not picked:
        return
    first, known = picked[0].batch_index, execution.first_pending
    if first < known or (first >= known + _STEP and any(result.batch_index % _STEP == 0 for result in picked)):
        names = {"execution_id": execution.id, "first": 0 if first < known else known}
        execution.first_pending = (await tx.connection.execute(_FIRST_PENDING, names)).scalar_one()
