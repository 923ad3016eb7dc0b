"""The second net: PostgreSQL itself keeps who acts for one user to the rows of that user (docs/adr/0023).

Policies of the tables go by a setting of the session or transaction. All of users' data is seen by who says
``everybody``, one user's by who says their id, and nothing by who says anything else.
"""

from __future__ import annotations

from nanobatch_runtime.ids import is_id
from nanobatch_storage.domain import Actor

SETTING = "nanobatch.acts_for"
EVERYBODY = "everybody"
NOBODY = "nobody"


def kept_to(actor: Actor | None) -> str | None:
    """Return whose rows alone may be seen on behalf of an actor; None: everybody's, as by admins and the system itself."""
    if actor is None or actor.admin:
        return None
    return actor.user_id if is_id(actor.user_id) else NOBODY
