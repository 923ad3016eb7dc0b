"""The queue finds newest rows first, however many old ones a snapshot somewhere keeps (docs/adr/0024).

Three things for it. ``first_pending`` spares the way past results that wait no more. An index meets the newest row of an
execution before all older ones; it is over a column that says the id once more, because over the id itself the planner may
take the primary key. And who may have calls out or to come stands in a table of its own, which changes only as runs begin
and end: triggers keep it, so that the version before keeps it, too.

SQLite has one process, which keeps no old snapshots: there both are views of the executions.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_COMMENT = "none pending has a lower batch_index"
_SQLITE_ACTIVE = """
create view active_executions as
    select id as execution_id, bucket_id, user_id from executions where active
"""
_SQLITE_LIVE = """
create view live_executions as
    select id, user_id, bucket_id, state, pending, processing, open_attempts, finishing, reserved_micros, create_time,
        first_pending
    from executions
    where active
"""
_LIVE = """
create view live_executions as
    select a.execution_id as id, a.user_id, a.bucket_id, e.state, e.pending, e.processing, e.open_attempts, e.finishing,
        e.reserved_micros, e.create_time, e.first_pending
    from active_executions a
    cross join lateral (
        select state, pending, processing, open_attempts, finishing, reserved_micros, create_time, first_pending
        from executions
        where row_key = a.execution_id
        order by epoch desc
        limit 1
    ) e
"""

_KEEP = """
create function keep_active_executions() returns trigger language plpgsql as $$
begin
    if tg_op <> 'INSERT' and old.active then
        delete from active_executions where execution_id = old.id;
    end if;
    if tg_op <> 'DELETE' and new.active then
        -- That a row is there already can only be somebody's repair: it is not to stand in the way for ever.
        insert into active_executions (execution_id, bucket_id, user_id) values (new.id, new.bucket_id, new.user_id)
            on conflict (execution_id) do update set bucket_id = excluded.bucket_id, user_id = excluded.user_id;
    end if;
    return null;
end $$
"""
_WHEN = {
    "insert": "new.active",
    "update": "old.active is distinct from new.active or old.active and old.bucket_id is distinct from new.bucket_id",
    "delete": "old.active",
}

# Like 0007's.
_SAID = "current_setting('nanobatch.acts_for', true)"
_MINE = f"(case when coalesce({_SAID}, '') in ('', 'everybody') then true end) is not null or user_id::text = {_SAID}"


def upgrade() -> None:
    op.add_column(
        "executions",
        sa.Column("first_pending", sa.Integer(), nullable=False, server_default="0", comment=_COMMENT),
    )
    due = sa.text("resume_time is not null")
    op.create_index("ix_executions_resume", "executions", ["resume_time"], postgresql_where=due, sqlite_where=due)
    if op.get_bind().dialect.name != "postgresql":
        op.execute(_SQLITE_ACTIVE)
        op.execute(_SQLITE_LIVE)
        return
    # Most updates stay in their page (HOT), though the epoch changes with each sixteenth and no dead row may be gone.
    op.execute("alter table executions set (fillfactor = 30)")
    op.execute(
        "alter table executions add column row_key uuid generated always as (id) stored,"
        " add column epoch bigint generated always as (revision / 16) stored"
    )
    op.execute("create index ix_executions_newest on executions (row_key, epoch desc)")
    op.execute(
        "create table active_executions (execution_id uuid not null constraint pk_active_executions primary key,"
        " bucket_id uuid not null, user_id uuid not null)"
    )
    op.execute("insert into active_executions select id, bucket_id, user_id from executions where active")
    op.execute("create index ix_active_executions_bucket_id on active_executions (bucket_id)")
    op.execute("create index ix_active_executions_user_id on active_executions (user_id)")
    op.execute(f"create policy own_rows on active_executions for all using ({_MINE}) with check ({_MINE})")
    op.execute("alter table active_executions enable row level security")
    op.execute("alter table active_executions force row level security")
    op.execute(_KEEP)
    for event, condition in _WHEN.items():
        op.execute(
            f"create trigger keep_active_on_{event} after {event} on executions for each row when ({condition})"
            " execute function keep_active_executions()"
        )
    op.execute(_LIVE)


def downgrade() -> None:
    op.execute("drop view live_executions")
    if op.get_bind().dialect.name == "postgresql":
        for event in _WHEN:
            op.execute(f"drop trigger keep_active_on_{event} on executions")
        op.execute("drop function keep_active_executions()")
        op.execute("drop table active_executions")
        op.execute("alter table executions set (fillfactor = 50)")
        op.drop_index("ix_executions_newest", "executions")
        op.drop_column("executions", "epoch")
        op.drop_column("executions", "row_key")
    else:
        op.execute("drop view active_executions")
    op.drop_index("ix_executions_resume", "executions")
    op.drop_column("executions", "first_pending")
