"""What uses an object store besides completions: readers of pictures, and the sweeper, whose hour of grace is seconds here."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from s3_server import S3Server

from nanobatch_client import Client, Patience
from nanobatch_client.errors import NanobatchError
from nanobatch_runtime.clock import SystemClock
from nanobatch_storage.adapters.blobs_obstore import S3Access, open_blobs
from nanobatch_storage.adapters.database import open_database
from nanobatch_storage.adapters.images_sql import SqlImages
from nanobatch_storage.errors import BlobsUnavailableError
from nanobatch_storage.sweep import Orphans
from soak.stage import Stage

_GRACE = timedelta(seconds=30)
"""Longer than any completion here takes; in operation it is an hour."""
_EVERY = 2.0
_AT_ONCE = Patience(retry=timedelta())


class Readers:
    """Downloads of pictures whose results are COMPLETED, by what they ended in."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()

    async def read(self, on: Stage, client: Client) -> None:
        """Download one after the other."""
        while True:
            await asyncio.sleep(0.1)
            found = on.rows("select image_id::text from results where state = 'COMPLETED' order by random() limit 1")
            for (image,) in found:
                try:
                    await client.download_image(image, on.folder / "downloaded", overwrite=True)
                    self.ended["OK"] += 1
                except NanobatchError as error:
                    self.ended[f"{error.code} {error.reason}"] += 1


class Sweeper:
    """The product's own sweep of what no row names, over the same store, with a grace of seconds."""

    def __init__(self, server: S3Server, bucket: str, planted: int) -> None:
        """``planted`` objects without a row are to go."""
        self._server, self._bucket = server, bucket
        self._planted = {f"pictures/orphan/{secrets.token_hex(8)}" for _ in range(planted)}
        for name in self._planted:
            server.ask("PUT", f"/{bucket}/{name}")
        self.passes = self.removed = self.failed = 0

    @property
    def is_done(self) -> bool:
        """Whether all that was planted is gone."""
        return self._planted.isdisjoint(self._server.names(self._bucket))

    async def sweep(self, on: Stage, store: dict[str, str]) -> None:
        """Pass after pass."""
        access = S3Access(store["AWS_ENDPOINT_URL"], "", store["AWS_ACCESS_KEY_ID"], store["AWS_SECRET_ACCESS_KEY"])
        blobs = open_blobs(store["NANOBATCH_BLOB_URL"], access)
        async with open_database(on.ground.postgres.url(on.database)) as database:
            orphans = Orphans(SqlImages(database), blobs, SystemClock(), _GRACE)
            while True:
                try:
                    self.removed += await orphans.remove()
                    self.passes += 1
                except BlobsUnavailableError:
                    self.failed += 1
                await asyncio.sleep(_EVERY)


@asynccontextmanager
async def used(
    on: Stage, server: S3Server, bucket: str, store: dict[str, str]
) -> AsyncIterator[tuple[Readers, Sweeper]]:
    """Read and sweep until the context ends."""
    readers, sweeper = Readers(), Sweeper(server, bucket, planted=5)
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in on.gateway_ports)
    async with Client(target, patience=_AT_ONCE) as client:
        tasks = [asyncio.create_task(each) for each in (readers.read(on, client), sweeper.sweep(on, store))]
        try:
            yield readers, sweeper
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
