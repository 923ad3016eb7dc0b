"""What is known of a picture, and how much of one we bear."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """Ceilings of one check."""

    max_bytes: int = 20 * MEBIBYTE
    """Size of the file."""
    max_pixels: int = 24_000_000
    """Width times height, read from the header before anything is decoded."""
    memory_bytes: int = 512 * MEBIBYTE
    """Address space of a child (Linux)."""
    time: timedelta = timedelta(seconds=10)
    """From the moment a child has the task; waiting for a free child does not count."""


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """A picture that was decoded to its last row."""

    mime_type: str
    """``image/png``, ``image/jpeg`` or ``image/webp``, by content."""
    width: int
    """Pixels, as stored: an orientation tag is not applied."""
    height: int
    """Pixels, as stored."""
    size_bytes: int
    sha256: str
    """Of the file's bytes, 64 lower-case hex characters."""
    extension: str
    """``png``, ``jpg`` or ``webp``."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small copy of a picture: WebP, the longer edge at most 256 pixels, some kilobytes."""

    data: bytes
    facts: PictureFacts


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found."""

    facts: PictureFacts
    thumbnail: Thumbnail | None = None
    """Where one was asked for."""
