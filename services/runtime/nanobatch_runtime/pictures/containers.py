"""Reads the structure of a picture file and decodes nothing: format, size, frames, and what is there besides pixels.

Done by hand rather than by Pillow, because dimensions must be known before any decoder is made (Pillow's WebP decoder
takes its memory when the file is opened), because Pillow accepts files whose end is missing, and because removing
metadata needs a list of what may stay, not of what is known to be harmful.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from nanobatch_runtime.pictures.errors import NotAPictureError, PictureDamagedError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = frozenset(
    (
        b"IHDR",
        b"PLTE",
        b"IDAT",
        b"IEND",
        b"tRNS",
        b"cHRM",
        b"gAMA",
        b"sRGB",
        b"iCCP",
        b"sBIT",
        b"bKGD",
        b"pHYs",
        b"cICP",
    )
)
_WEBP_PIXELS = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP"))
# In a JPEG's compressed data 0xFF is followed by 0x00 or a restart marker; anything else begins the next segment.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_FILL = re.compile(rb"\xff+")  # a marker may be preceded by any number of its own first byte
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOI, _EOI, _SOS, _COM, _APP0, _APP2, _APP14, _APP15 = 0xD8, 0xD9, 0xDA, 0xFE, 0xE0, 0xE2, 0xEE, 0xEF

# Only to tell people what they have in hand.
_OTHERS = (
    (b"GIF8", "a GIF"),
    (b"II*\x00", "a TIFF"),
    (b"MM\x00*", "a TIFF"),
    (b"8BPS", "a Photoshop file"),
    (b"BM", "a BMP"),
    (b"SIMPLE  =", "a FITS file"),
    (b"%PDF", "a PDF"),
    (b"<svg", "an SVG"),
    (b"<?xml", "an XML or SVG file"),
    (b"PK\x03\x04", "a ZIP archive"),
)


@dataclass(frozen=True, slots=True)
class Container:
    """What a file's structure says."""

    format: str
    """``PNG``, ``JPEG`` or ``WEBP``."""
    width: int
    height: int
    frames: int
    """More than one: animated."""
    has_extras: bool
    """There is something besides pixels and colours: camera data, texts, comments, bytes behind the end."""
    is_lossless: bool


def read(data: bytes) -> Container:
    """Walk through ``data``; raises NotAPictureError for other formats and PictureDamagedError where an end is missing."""
    if data.startswith(_PNG_SIGNATURE):
        return _read_png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _read_jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _read_webp(data)
    if data[4:8] == b"ftyp":
        what = "an AVIF, HEIC or video file"
    else:
        start = data.lstrip()
        what = next((name for magic, name in _OTHERS if start.startswith(magic)), "no picture" if data else "empty")
    raise NotAPictureError(f"The file is {what}; PNG, JPEG and WebP pictures are taken.")


def _cut_off() -> PictureDamagedError:
    return PictureDamagedError("The picture is cut off: its end is missing.")


def _broken() -> PictureDamagedError:
    return PictureDamagedError("The picture is damaged and cannot be read.")


def _made(kind: str, size: tuple[int, int], *, frames: int, extras: bool, lossless: bool) -> Container:
    width, height = size
    if width < 1 or height < 1:
        raise _broken()
    return Container(kind, width, height, frames, extras, lossless)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _read_png(data: bytes) -> Container:
    view, at = memoryview(data), len(_PNG_SIGNATURE)
    size, frames, extras = (0, 0), 1, False
    while True:
        if at + 12 > len(data):
            raise _cut_off()
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise _cut_off()
        # Pillow skips the checksums of pixel data; browsers do not, and show nothing.
        is_critical = not name[0] & 0x20
        if is_critical and zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise _broken()
        if at == len(_PNG_SIGNATURE) and (name != b"IHDR" or length != 13):  # noqa: PLR2004 - the length it always has
            raise _broken()
        if name == b"IHDR":
            size = struct.unpack_from(">II", data, at + 8)
        elif name == b"acTL" and length >= 4:  # noqa: PLR2004 - a 32 bit number
            frames = max(1, struct.unpack_from(">I", data, at + 8)[0])
        extras = extras or name not in _PNG_PIXELS
        at = end
        if name == b"IEND":
            return _made("PNG", size, frames=frames, extras=extras or at < len(data), lossless=True)


def _read_jpeg(data: bytes) -> Container:
    at, size, extras = 2, (0, 0), False
    while True:
        at = _jpeg_marker_at(data, at)
        marker = data[at + 1]
        if marker == _EOI:
            return _made("JPEG", size, frames=1, extras=extras or at + 2 < len(data), lossless=False)
        if at + 4 > len(data):
            raise _cut_off()
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if end > len(data):
            raise _cut_off()
        if marker in _JPEG_FRAMES:
            # A second frame header is not legal, and must not hide a larger first one.
            size = max(size, _jpeg_size(data[at + 5 : at + 9]), key=_area)
        extras = extras or _is_jpeg_extra(marker, data[at + 4 : at + 16])
        at = end
        if marker == _SOS:
            following = _JPEG_MARKER.search(data, at)
            if following is None:
                raise _cut_off()
            at = following.start()


def _jpeg_marker_at(data: bytes, at: int) -> int:
    fill = _JPEG_FILL.match(data, at)
    if fill is None:
        raise _broken() if at < len(data) else _cut_off()
    if fill.end() == len(data):
        raise _cut_off()
    return fill.end() - 1


def _jpeg_size(body: bytes) -> tuple[int, int]:
    return int.from_bytes(body[2:4], "big"), int.from_bytes(body[:2], "big")


def _is_jpeg_extra(marker: int, start: bytes) -> bool:
    if marker == _APP0:
        return not start.startswith(b"JFIF\x00")
    if marker == _APP2:
        return not start.startswith(b"ICC_PROFILE\x00")
    if marker == _APP14:
        return not start.startswith(b"Adobe")
    return marker == _COM or _APP0 < marker <= _APP15


def _read_webp(data: bytes) -> Container:
    total = struct.unpack_from("<I", data, 4)[0] + 8
    if total > len(data):
        raise _cut_off()
    at, size, frames, extras, lossless = 12, (0, 0), 0, total < len(data), False
    while at + 8 <= total:
        name, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > total:
            raise _cut_off()
        size = max(size, _webp_size(name, data[at + 8 : at + 8 + min(length, 10)]), key=_area)
        frames += name == b"ANMF"
        extras = extras or name not in _WEBP_PIXELS
        lossless = lossless or name == b"VP8L"
        at += 8 + length + length % 2
    return _made("WEBP", size, frames=max(1, frames), extras=extras, lossless=lossless)


def _webp_size(name: bytes, body: bytes) -> tuple[int, int]:
    if name == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if name == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if name == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return 0, 0
