from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A picture that does not compress to nothing, the same every time."""
    small = (max(1, width // 8), max(1, height // 8))
    pixels = random.Random(7).randbytes(small[0] * small[1] * len(mode))
    return Image.frombytes(mode, small, pixels).resize((width, height))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, format=kind, **options)
    return out.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def flat_png(width: int, height: int) -> bytes:
    """A valid one-bit PNG of any size, made row by row: tiny as a file, huge as pixels."""
    rows, packer = b"\x00" * (1 + (width + 7) // 8), zlib.compressobj(9)
    body = b"".join(packer.compress(rows) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes, str], Path]:
    def to(data: bytes, name: str = "picture") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return to
