"""Other processes that open the database file of a running nanobatch: ``python -m soak.visitors backup|read DATABASE``.

Each goes on until SIGTERM, then prints as JSON how often it looked and everything that was not as it should be.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_PAUSE = 0.2
_COUNTS = """
select e.id from executions e left join results r on r.execution_id = e.id group by e.id having
    e.completed <> sum(r.state = 'COMPLETED') or e.pending <> sum(r.state = 'PENDING') or e.total <> count(r.id)
"""


def sound(connection: sqlite3.Connection) -> list[str]:
    """Return what is wrong with a database: its pages, or counts that are not its rows."""
    wrong = [f"integrity_check: {row[0]}" for row in connection.execute("pragma integrity_check") if row[0] != "ok"]
    return wrong + [f"execution {row[0]} does not count its rows" for row in connection.execute(_COUNTS)]


def back_up(database: Path) -> list[str]:
    """Do what docs/operations.md says: copy it while it runs; then look at the copy."""
    with tempfile.TemporaryDirectory(dir=database.parent) as folder:
        source, copy = sqlite3.connect(database), sqlite3.connect(Path(folder) / "copy.db")
        try:
            source.backup(copy)
            return sound(copy)
        finally:
            source.close()
            copy.close()


def read(database: Path) -> list[str]:
    """Read it in place, all in one snapshot."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None)
    try:
        connection.execute("begin")
        return [f"execution {row[0]} does not count its rows" for row in connection.execute(_COUNTS)]
    finally:
        connection.close()


def main() -> int:
    what: Callable[[Path], list[str]] = {"backup": back_up, "read": read}[sys.argv[1]]
    database, is_over, looks, wrong = Path(sys.argv[2]), [], 0, []
    signal.signal(signal.SIGTERM, lambda *_: is_over.append(True))
    while not is_over:
        try:
            wrong += what(database)
            looks += 1
        except sqlite3.Error as error:
            wrong.append(f"{type(error).__name__}: {error}")
        time.sleep(_PAUSE)
    print(json.dumps({"looks": looks, "wrong": wrong}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
