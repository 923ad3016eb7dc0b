"""Pictures for fake upstreams: real ones, of a size that can be chosen."""

from __future__ import annotations

import io
import random
import struct
import zlib

from PIL import Image


def noise_png(byte_count: int, size: tuple[int, int] = (1024, 1024), seed: int = 1) -> bytes:
    """Return a valid RGB PNG of exactly ``byte_count`` bytes: as much noise as that takes, the rest of each row plain.

    Where even noise all over is smaller, a chunk that decoders skip makes up for it.
    """
    width, height = size
    source = random.Random(seed)
    row_length = 3 * width
    noisy = min(row_length, max(0, (byte_count - 20_000) // height))
    packer = zlib.compressobj(1)
    packed = bytearray()
    for y in range(height):
        plain = bytes((70 + y * 100 // height,)) * (row_length - noisy)
        packed += packer.compress(b"\0" + source.randbytes(noisy) + plain)
    packed += packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)
    end = _chunk(b"IDAT", bytes(packed)) + _chunk(b"IEND", b"")
    missing = byte_count - len(start) - len(end) - 12
    filler = _chunk(b"nbFl", source.randbytes(missing)) if missing >= 0 else b""
    return start + filler + end


def noise_jpeg(size: tuple[int, int] = (1024, 1024), seed: int = 1) -> bytes:
    """Return a JPEG of ``size``."""
    small = (size[0] // 8, size[1] // 8)
    picture = Image.frombytes("RGB", small, random.Random(seed).randbytes(3 * small[0] * small[1])).resize(size)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    return out.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
