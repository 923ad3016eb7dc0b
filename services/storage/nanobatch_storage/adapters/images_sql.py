"""Rows of pictures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, delete, select

from nanobatch_runtime.ids import is_id
from nanobatch_storage.adapters.access import lock_user, visible
from nanobatch_storage.adapters.credentials_sql import insert_if_absent
from nanobatch_storage.adapters.database import Database, Transaction
from nanobatch_storage.adapters.tables import images
from nanobatch_storage.domain import Actor, Image, ImageKind
from nanobatch_storage.errors import ImageExistsError

UPLOAD_LIFE = timedelta(hours=24)
"""How long an upload stays that no execution uses."""


class SqlImages:
    """See :class:`nanobatch_storage.ports.Images`."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._database = database

    async def add(self, image: Image) -> Image:
        """See the port."""
        owner = Actor(image.user_id)

        async def work(tx: Transaction) -> Image:
            await lock_user(tx, owner)
            stored = replace(image, create_time=tx.now, expire_time=tx.now + UPLOAD_LIFE)
            values = {field.name: getattr(stored, field.name) for field in fields(stored)}
            # Nobody can look first: an id may be taken by a picture of somebody else's.
            if not await insert_if_absent(tx, images, values):
                raise ImageExistsError
            return stored

        return await self._database.write(work, owner)

    async def get_many(self, actor: Actor, image_ids: Collection[str]) -> Sequence[Image]:
        """See the port."""
        ids = {image_id for image_id in image_ids if is_id(image_id)}
        if not ids:
            return []
        async with self._database.read(actor) as tx:
            found = await tx.connection.execute(select(images).where(images.c.id.in_(ids), visible(images, actor)))
            return [_image_from(row) for row in found]

    async def take_expired(self, limit: int) -> Sequence[Image]:
        """See the port."""

        async def work(tx: Transaction) -> list[Image]:
            # In the order of the locks of whoever uses several pictures at once, and past those that are being used.
            due = select(images.c.id).where(images.c.expire_time <= tx.now).order_by(images.c.id).limit(limit)
            ids = list((await tx.connection.execute(due.with_for_update(skip_locked=True))).scalars())
            if not ids:
                return []
            gone = delete(images).where(images.c.id.in_(ids), images.c.expire_time <= tx.now).returning(images)
            return [_image_from(row) for row in await tx.connection.execute(gone)]

        return await self._database.write(work)

    async def named(self, paths: Collection[str]) -> set[str]:
        """See the port."""
        async with self._database.read() as tx:
            statement = select(images.c.blob_path).where(images.c.blob_path.in_(list(paths)))
            return set((await tx.connection.execute(statement)).scalars())


def _image_from(row: Row[Any]) -> Image:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's documented mapping view
    return Image(**{**values, "kind": ImageKind(values["kind"])})
