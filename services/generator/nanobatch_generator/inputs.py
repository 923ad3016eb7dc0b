"""Input pictures, kept for a while: a hundred prompts mostly share the same references."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from nanobatch_generator.domain import InputImage, Lease
from nanobatch_generator.ports import Images

_MAX_BYTES = 64 * 1024 * 1024

_Key = tuple[str, str]


class Inputs:
    """Reads the input pictures of leases through a cache that is bounded in bytes.

    Entries are found by user and picture, so that what one user may see is never served to another. Those who want a
    picture that is just being read wait for the same read.
    """

    def __init__(self, images: Images, max_bytes: int = _MAX_BYTES) -> None:
        """Keep at most ``max_bytes`` of pictures; a larger one is read anew each time."""
        self._images = images
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[_Key, InputImage] = OrderedDict()
        self._reading: dict[_Key, asyncio.Lock] = {}

    async def of(self, lease: Lease) -> tuple[InputImage, ...]:
        """Return the source picture first, then the references in order. Raises ImageGoneError, StorageDownError."""
        ids = [lease.source_image_id] if lease.source_image_id else []
        ids += lease.reference_image_ids
        return tuple([await self._get((lease.user_id, image_id)) for image_id in ids])

    async def _get(self, key: _Key) -> InputImage:
        # A lock rather than a shared task: a reader that is cancelled or fails takes nobody with it, the next one reads.
        lock = self._reading.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                found = self._kept.get(key)
                if found is None:
                    found = await self._images.read(*key)
                    self._keep(key, found)
                else:
                    self._kept.move_to_end(key)
                return found
        finally:
            if not lock.locked() and self._reading.get(key) is lock:
                del self._reading[key]

    def _keep(self, key: _Key, image: InputImage) -> None:
        if len(image.data) > self._max_bytes:
            return
        self._kept[key] = image
        self._bytes += len(image.data)
        while self._bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest.data)
