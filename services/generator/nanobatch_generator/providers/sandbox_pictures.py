"""What the sandbox draws: the prompt's words on a coloured ground. Pure functions of their arguments, for threads."""

from __future__ import annotations

import colorsys
import functools
import io
import re
import struct
import unicodedata
import zlib
from typing import Final

from PIL import Image, ImageDraw, ImageFont

# As gemini-2.5-flash-image: see the table of pixels there.
_SIZES: Final = {
    "1:1": (1024, 1024),
    "2:3": (832, 1248),
    "3:2": (1248, 832),
    "3:4": (864, 1184),
    "4:3": (1184, 864),
    "4:5": (896, 1152),
    "5:4": (1152, 896),
    "9:16": (768, 1344),
    "16:9": (1344, 768),
    "21:9": (1536, 672),
}
_FONT_SIZES: Final = (132, 112, 96, 80, 66, 54, 44, 36, 30, 25, 21)
_BOMB_SIDE: Final = 13_312
# Shades of the ground, top and bottom.
_TOP: Final = 84
_BOTTOM: Final = 34
# What is longer is broken, so that no line grows without bound, and scripts without spaces fill theirs.
_WORD: Final = re.compile(r"\S{1,28}")
_MOST_CHARACTERS: Final = 3_000
_SYSTEM_FONTS: Final = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    "arial.ttf",
)
_PLAIN: Final = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O", "\u2013": "-", "\u2014": "-", "\u2018": "'", "\u2019": "'"}
)
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def picture_size(aspect_ratio: str) -> tuple[int, int]:
    """Return width and height in pixels; an unknown or empty ratio is square."""
    return _SIZES.get(aspect_ratio, _SIZES["1:1"])


def draw(words: str, size: tuple[int, int], fingerprint: bytes, label: str) -> bytes:
    """Return a PNG of ``size``: ``words`` as large as they fit, colours by ``fingerprint``, ``label`` in a corner."""
    # Drawn in shades of grey that become one of 256 colours from dark over a hue to white: a third of the bytes of a
    # picture in three channels, in memory, in time and in the file.
    picture = _ground(size, fingerprint)
    pen = ImageDraw.Draw(picture)
    width, height = size
    margin = min(size) // 11
    _write(pen, words, (margin, margin, width - margin, height - margin - 48))
    small = _font(26)
    pen.text((margin, height - margin), label, font=small, fill=230, anchor="ls")
    pen.text((width - margin, height - margin), "sandbox", font=small, fill=230, anchor="rs")
    picture.putpalette(_palette(fingerprint[0] / 256))
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1)
    return out.getvalue()


@functools.lru_cache(maxsize=1)
def picture_bomb() -> bytes:
    """Return a valid PNG of 177 megapixels in some 21 KiB: what a decoder without a ceiling drowns in."""
    row = b"\0" * (1 + _BOMB_SIDE // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(_BOMB_SIDE)) + packer.flush()
    header = struct.pack(">IIBBBBB", _BOMB_SIDE, _BOMB_SIDE, 1, 0, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", packed), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _ground(size: tuple[int, int], fingerprint: bytes) -> Image.Image:
    """Return a gradient with three large discs: cheap to draw, cheap to compress, never loud."""
    width, height = size
    column = Image.new("L", (1, height))
    column.putdata([_TOP - (_TOP - _BOTTOM) * y // height for y in range(height)])
    picture = column.resize(size, Image.Resampling.NEAREST)
    disc = Image.new("L", size)
    pen = ImageDraw.Draw(disc)
    for x, y, r in (fingerprint[1:4], fingerprint[4:7], fingerprint[7:10]):
        center, radius = (x / 255 * width, y / 255 * height), min(size) * (0.20 + r / 900)
        pen.ellipse((center[0] - radius, center[1] - radius, center[0] + radius, center[1] + radius), fill=28)
    picture.paste(210, mask=disc)
    return picture


def _palette(hue: float) -> list[int]:
    """Return 256 colours of rising lightness, the darker ones of a neighbouring hue."""
    colors: list[int] = []
    for step in range(256):
        at = step / 255
        red, green, blue = colorsys.hls_to_rgb((hue + 0.12 * (1 - at)) % 1.0, 0.08 + 0.92 * at, 0.55)
        colors += (round(red * 255), round(green * 255), round(blue * 255))
    return colors


def _write(pen: ImageDraw.ImageDraw, words: str, box: tuple[int, int, int, int]) -> None:
    """Write ``words`` centred in ``box``, as large as they fit; what no size holds ends in an ellipsis."""
    words, named = _drawable(words[:_MOST_CHARACTERS])
    left, top, right, bottom = box
    for size in _FONT_SIZES:
        line_height = round(size * 1.28)
        lines, fits = _wrap(words, _font(100, named), (right - left) * 100 / size)
        if fits and len(lines) * line_height <= bottom - top:
            break
    else:
        room = (bottom - top) // line_height
        if len(lines) > room:
            lines = [*lines[: room - 1], lines[room - 1][:-3].rstrip() + "..."]
    y = (top + bottom - len(lines) * line_height) // 2
    for line in lines:
        pen.text(((left + right) // 2, y), line, font=_font(size, named), fill=255, anchor="ma")
        y += line_height


def _wrap(words: str, font: _Font, width: float) -> tuple[list[str], bool]:
    """Break ``words`` into lines of at most ``width``; False: a single word is wider than that."""
    space = _length(font, " ")
    lines: list[str] = []
    fits = True
    for paragraph in words.splitlines():
        line: list[str] = []
        used = 0.0
        for word in _WORD.findall(paragraph):
            length = _length(font, word)
            fits = fits and length <= width
            if line and used + space + length > width:
                lines.append(" ".join(line))
                line, used = [word], length
            else:
                used += length + (space if line else 0)
                line.append(word)
        lines.append(" ".join(line))
    return lines, fits


@functools.lru_cache(maxsize=4096)
def _length(font: _Font, word: str) -> float:
    return font.getlength(word)


@functools.lru_cache(maxsize=32)
def _font(size: int, name: str = "") -> _Font:
    # Pillow's own font is the same on every machine, whatever is installed there.
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


def _drawable(words: str) -> tuple[str, str]:
    """Return ``words`` as they can be drawn, and the font for it: Pillow's own has little more than ASCII."""
    if words.isascii():
        return words, ""
    name = _system_font()
    if name:
        return words, name
    plain = unicodedata.normalize("NFKD", words.translate(_PLAIN))
    return "".join(c if c.isascii() else "?" for c in plain if not unicodedata.combining(c)), ""


@functools.lru_cache(maxsize=1)
def _system_font() -> str:
    for name in _SYSTEM_FONTS:
        try:
            ImageFont.truetype(name, 10)
        except OSError:
            continue
        return name
    return ""
