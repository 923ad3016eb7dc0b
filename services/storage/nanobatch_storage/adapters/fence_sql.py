"""The fence: what stands under a lease is locked, and found only while that lease is the one that counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BindParameter, bindparam, select

from nanobatch_runtime.ids import is_id
from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.database import Transaction
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.tables import attempts, results
from nanobatch_storage.domain import Attempt, Execution, LeaseRef, Result
from nanobatch_storage.errors import LeaseLostError

_RESULT_IDS: BindParameter[str] = bindparam("result_ids", expanding=True)
_LOCK_EXECUTIONS = rows.locking(select(results.c.execution_id).where(results.c.id.in_(_RESULT_IDS)))
# The results and, where one was opened under these leases, their attempts. Only the results are locked: attempts change
# under the lock of their execution alone, which is held by then. The ids stand twice, for the planner: it does not conclude
# from a list in one table what the other one's column may be.
_LOCK_RESULTS = Prepared(
    select(results, *(column.label(f"attempt_{column.name}") for column in attempts.c))
    .outerjoin(
        attempts,
        (attempts.c.result_id == results.c.id)
        & attempts.c.result_id.in_(_RESULT_IDS)
        & attempts.c.lease_id.in_(bindparam("lease_ids", expanding=True)),
    )
    .where(results.c.id.in_(_RESULT_IDS))
    .order_by(results.c.id)
    .with_for_update(key_share=True, of=results)
)
_NOT_REPORTED = frozenset({"CRASHED", "RELEASED"})
"""How attempts end that no worker reported the end of a call for: nothing more may be said about them."""


@dataclass(slots=True)
class Held:
    """Rows that are locked, each once, however many leases name it."""

    executions: dict[str, Execution]
    results: dict[str, Result]
    attempts: dict[LeaseRef, Attempt]

    def of(self, lease: LeaseRef) -> tuple[Execution, Result, Attempt | None]:
        """Return what stands under a lease that is still the current one. Raises LeaseLostError."""
        result = self.results.get(lease.result_id)
        execution = self.executions.get(result.execution_id) if result is not None else None
        if result is None or execution is None:
            raise LeaseLostError
        attempt = self.attempts.get(lease)
        # A commit whose answer was lost has dropped the lease: its attempt knows it.
        told_before = attempt is not None and attempt.charged is not None and attempt.outcome not in _NOT_REPORTED
        if result.lease_id != lease.lease_id and not told_before:
            raise LeaseLostError
        return execution, result, attempt


async def lock(tx: Transaction, leases: Sequence[LeaseRef]) -> Held:
    """Lock executions, results and attempts of leases, in that order. Lost leases and rubbish are not told apart here."""
    known = [lease for lease in leases if is_id(lease.result_id) and is_id(lease.lease_id)]
    held = Held({}, {}, {})
    if not known:
        return held
    names = {"result_ids": list({lease.result_id for lease in known})}
    found = await tx.connection.execute(_LOCK_EXECUTIONS, names)
    held.executions = {row.id: rows.execution_from(row) for row in found}
    names["lease_ids"] = list({lease.lease_id for lease in known})
    for row in await tx.connection.execute(_LOCK_RESULTS, names):
        result, attempt = rows.result_and_attempt_from(row)
        result = held.results.setdefault(result.id, result)
        if attempt is not None:
            held.attempts[LeaseRef(result.id, attempt.lease_id)] = attempt
    return held


async def write(tx: Transaction, held: Held) -> None:
    """Write back what has changed in what is held."""
    await rows.save(tx, list(held.results.values()))
    await rows.save(tx, list(held.attempts.values()))
    await rows.save(tx, list(held.executions.values()))
