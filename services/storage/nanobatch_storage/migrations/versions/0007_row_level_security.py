"""Row-level security: who acts for one user finds the rows of that user alone, whatever the query says (docs/adr/0023).

A session says in ``nanobatch.acts_for`` on whose behalf it asks: a user's id, ``everybody``, or anything else for nobody.
One that says nothing is of the version before, which knows of no such setting, or a person's: it sees everything, until a
later migration takes that away.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# In the order in which transactions lock: users, executions, results, attempts, then what hangs on them.
_OWNERS = {"users": "id"} | dict.fromkeys(
    (
        "executions", "results", "attempts", "jobs", "credentials", "workflows", "retry_requests", "images", "tokens",
    ),
    "user_id",
)  # fmt: skip

_SAID = "current_setting('nanobatch.acts_for', true)"
# "Is not null" is what the planner takes for true of nearly all rows, so that its estimates, and with them the queue's plans,
# stay what they were. A sub-select would be looked up once and not for every row, and costs the queue's small statements more.
_EVERYBODY = f"(case when coalesce({_SAID}, '') in ('', 'everybody') then true end) is not null"


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute(f"lock table {', '.join(_OWNERS)} in access exclusive mode")
    for table, owner in _OWNERS.items():
        mine = f"{_EVERYBODY} or {owner}::text = {_SAID}"
        op.execute(f"create policy own_rows on {table} for all using ({mine}) with check ({mine})")
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"alter table {table} force row level security")  # storage's role owns the tables


def downgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in reversed(_OWNERS):
        op.execute(f"alter table {table} no force row level security")
        op.execute(f"alter table {table} disable row level security")
        op.execute(f"drop policy own_rows on {table}")
