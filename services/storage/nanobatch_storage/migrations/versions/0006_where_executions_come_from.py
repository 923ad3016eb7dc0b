"""Under which id and trace the call that created an execution is found; executions from before have none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    request_comment = "id in the logs of the call that made it; not the client's"
    trace_comment = "W3C trace context of that call; null: it was not traced"
    op.add_column("executions", sa.Column("origin_request_id", sa.String(64), comment=request_comment))
    op.add_column("executions", sa.Column("origin_traceparent", sa.String(64), comment=trace_comment))
