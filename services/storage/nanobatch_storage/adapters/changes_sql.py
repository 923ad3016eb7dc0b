"""What changed in an execution since a revision."""

from __future__ import annotations

from sqlalchemy import Integer, bindparam, select

from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.access import find_execution
from nanobatch_storage.adapters.database import Database
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.tables import results
from nanobatch_storage.domain import Actor
from nanobatch_storage.views import Changes

PAGE = 200
"""Results read at once: a slow watcher holds no more than that."""

_CHANGED = Prepared(
    select(results)
    .where(
        results.c.execution_id == bindparam("execution"),
        results.c.revision > bindparam("after"),
        results.c.revision <= bindparam("upto"),
    )
    .order_by(results.c.revision)
    .limit(bindparam("page", type_=Integer))
)


class SqlChangeLog:
    """See :class:`nanobatch_storage.ports.ChangeLog`."""

    def __init__(self, database: Database, *, page: int = PAGE) -> None:
        """``page`` is how many results are read at once."""
        self._database = database
        self._page = page

    async def since(self, actor: Actor, execution_id: str, revision: int) -> Changes:
        """See the port."""
        async with self._database.read(actor) as tx:
            # The execution first: all revisions up to its number are committed, because each was given out under its
            # row lock. A row that moved on between the two reads lies above, and comes with the next page.
            view = await find_execution(tx, actor, execution_id)
            head = view.execution.revision
            if head <= revision:
                return Changes(view, upto=head, waiting=view.cooling(tx.now))
            window = {"execution": execution_id, "after": revision, "upto": head, "page": self._page}
            found = [rows.result_from(row) for row in await tx.connection.execute(_CHANGED, window)]
            return Changes(
                view,
                results=[view.show(result, tx.now) for result in found],
                upto=found[-1].revision if len(found) == self._page else head,
                waiting=view.cooling(tx.now),
            )
