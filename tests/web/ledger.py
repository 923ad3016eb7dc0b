"""A past for a product that has not started yet: a user whose ledger holds calls of the last forty days."""

import asyncio
import random
import sqlite3
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nanobatch_storage import migrate

BOOKKEEPER = "00000000-0000-4000-8000-0000000000bb"
"""The user's id."""
HOSTILE = "<img src=x onerror=document.title='hacked'>"
MODELS = ("gemini-2.5-flash-image", "sandbox", "c", "d", "e", "f", "g", HOSTILE)
OUTCOMES = {"COMPLETED": "YES", "RATE_LIMITED": "NO", "BLOCKED": "NO", "CRASHED": "MAYBE"}


def write_ledger(path: Path) -> None:
    """Write calls of the last 40 days; the first days of the range and the last are among them."""
    asyncio.run(migrate.upgrade(f"sqlite:///{path}"))
    chance = random.Random(7)  # a test's own dice
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    bucket = str(uuid.uuid4())
    with sqlite3.connect(path) as database:
        database.execute(
            "insert into users (id, role, name, create_time) values (?, 'client', 'bookkeeper', ?)",
            (BOOKKEEPER, f"{today:%Y-%m-%d %H:%M:%S.%f}"),
        )
        database.execute(
            "insert into buckets (id, provider, model, fingerprint, window, rate_limits, overloads)"
            " values (?, 'sandbox', 'sandbox', 'f', 10, 0, 0)",
            (bucket,),
        )
        for back in [0, 6, 7, 29, 30, *(chance.randrange(40) for _ in range(300))]:
            outcome = chance.choice(["COMPLETED", *OUTCOMES])
            charged = OUTCOMES[outcome]
            row = {
                **{name: str(uuid.uuid4()) for name in ("id", "execution_id", "result_id", "lease_id")},
                "user_id": BOOKKEEPER, "bucket_id": bucket, "model": chance.choice(MODELS), "reserved_micros": 40_000,
                "start_time": f"{today - timedelta(days=back) + timedelta(seconds=1):%Y-%m-%d %H:%M:%S.%f}",
                "outcome": outcome, "charged": charged, "cost_micros": 38_704 if charged == "YES" else 0,
                "input_tokens": 0, "text_output_tokens": 0, "image_output_tokens": 0,
                "usage_reported": charged == "YES", "provider_status": "", "provider_response_id": "",
                "error_code": "", "processing_ms": chance.randrange(500, 30_000),
            }  # fmt: skip
            places = ", ".join(f":{name}" for name in row)
            database.execute(f"insert into attempts ({', '.join(row)}) values ({places})", row)  # our own
