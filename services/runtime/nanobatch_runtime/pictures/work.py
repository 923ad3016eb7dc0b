"""The work itself, synchronous and in this process: decode everything, shrink, clean.

Who handles bytes of others calls it through :class:`~nanobatch_runtime.pictures.checker.PictureChecker`, which runs it
in a child under limits of time and memory. Here only the ceilings of pixels and bytes hold.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps, JpegImagePlugin

from nanobatch_runtime.pictures import containers
from nanobatch_runtime.pictures.containers import Container
from nanobatch_runtime.pictures.errors import (
    PictureAnimatedError,
    PictureDamagedError,
    PictureError,
    PictureTooLargeError,
)
from nanobatch_runtime.pictures.facts import MEBIBYTE, Checked, PictureFacts, PictureLimits, Thumbnail
from nanobatch_runtime.pictures.files import write_atomically

THUMBNAIL_EDGE = 256
"""Pixels of a thumbnail's longer edge, at most."""

_KINDS = {"PNG": ("image/png", "png"), "JPEG": ("image/jpeg", "jpg"), "WEBP": ("image/webp", "webp")}
# The modes that shrink well and that WebP takes; what is missing here is brought to one of them first.
_SHRINKABLE = frozenset(("L", "LA", "RGB", "RGBA", "CMYK"))
# Colours and holes belong to the pixels. Everything else that a decoder noted (texts, camera data) is metadata.
_KEPT_INFO = ("icc_profile", "transparency")
# libwebp's lossless encoder takes some 20 bytes a pixel: beyond this a child's memory would not do, and 95 % has to.
_LOSSLESS_WEBP_PIXELS = 12_000_000
# How libwebp's encoder says so (VP8_ENC_ERROR_OUT_OF_MEMORY and its neighbour for the bit stream).
_OUT_OF_MEMORY = ("encoding error 1", "encoding error 2")


def check(path: Path, limits: PictureLimits, *, thumbnail: bool = False) -> Checked:
    """Decode the whole file at ``path``, and make a thumbnail of it where one is wanted.

    The file itself is not touched. Raises a PictureError, or OSError where it cannot be read.
    """
    data = _read(path, limits)
    container = _admit(data, limits)
    with _damage_named():
        image = _decode(data, container, limits)
        small = _encode_thumbnail(image) if thumbnail else None
    facts = _facts(data, container.format, image.size)
    if small is None:
        return Checked(facts)
    encoded, size = small
    return Checked(facts, Thumbnail(encoded, _facts(encoded, "WEBP", size)))


def prepare_upload(path: Path, out_path: Path, limits: PictureLimits) -> PictureFacts:
    """Decode the whole file at ``path``, and write to ``out_path`` what may be stored and sent on.

    A file of nothing but pixels and colours is written as it is. Any other is made anew from its pixels: turned as its
    orientation says, without camera data, place, texts, comments and whatever stood behind its end. The format stays:
    JPEG at quality 95, PNG without loss, WebP without loss where it had none (up to 12 megapixels). The facts are those
    of the written file, which may be larger than ``max_bytes``. Raises as :func:`check`.
    """
    data = _read(path, limits)
    container = _admit(data, limits)
    with _damage_named():
        image = _decode(data, container, limits)
        size = image.size
        if container.has_extras:
            sampling = JpegImagePlugin.get_sampling(image) if container.format == "JPEG" else -1
            # A copy takes the decoder's place, which for WebP holds thrice the pixels.
            image = image.copy() if _orientation(image) == 1 else ImageOps.exif_transpose(image)
            data, size = _encode_clean(image, container, sampling), image.size
    write_atomically(out_path, data)
    return _facts(data, container.format, size)


def _read(path: Path, limits: PictureLimits) -> bytes:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > limits.max_bytes:
            raise PictureTooLargeError(f"The file is larger than {limits.max_bytes / MEBIBYTE:g} MiB.")
        return file.read()


def _admit(data: bytes, limits: PictureLimits) -> Container:
    container = containers.read(data)
    _hold_to_ceiling(container.width, container.height, limits)
    # Later frames would be stored and shown without anybody having decoded them, decoding them all is work without
    # bound, and no model makes or takes them: one frame, or none of it.
    if container.frames > 1:
        raise PictureAnimatedError("The picture is animated; only still pictures are taken.")
    return container


def _hold_to_ceiling(width: int, height: int, limits: PictureLimits) -> None:
    if width * height > limits.max_pixels:
        most = limits.max_pixels / 1_000_000
        raise PictureTooLargeError(f"The picture has {width} x {height} pixels; at most {most:g} megapixels are taken.")


@contextmanager
def _damage_named() -> Iterator[None]:
    """Decoders meet broken bytes with nearly any exception: all of them mean that the picture is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # A phone's second picture that is broken does not concern us: the first one counts.
            warnings.filterwarnings("ignore", message=".*malformed MPO")
            # Here this module reads camera data alone, whose faults leave the pixels whole.
            warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")
            # Only says that a palette would better have been expanded, which we do.
            warnings.filterwarnings("ignore", message="Palette images with Transparency")
            yield
    except (PictureError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureTooLargeError("The picture has more pixels than are taken.") from None
    except Exception as error:  # noqa: BLE001 - see above
        if str(error).startswith(_OUT_OF_MEMORY):
            raise MemoryError from None
        raise PictureDamagedError("The picture is damaged and cannot be decoded.") from None


def _decode(data: bytes, container: Container, limits: PictureLimits) -> Image.Image:
    image = Image.open(BytesIO(data), formats=[container.format])
    _hold_to_ceiling(*image.size, limits)  # should the decoder read another size than we did
    image.load()
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001 - camera data may be broken in any way, and the pixels are fine
        return 1


def _encode_thumbnail(image: Image.Image) -> tuple[bytes, tuple[int, int]]:
    scale = min(1.0, THUMBNAIL_EDGE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # A whole-number reduction first (cheap), the rest by a filter: 1024 to 512 needs the reduction alone.
    small = _shrinkable(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
    if _orientation(image) != 1:
        small = ImageOps.exif_transpose(small)
    if small.mode == "CMYK":
        small = small.convert("RGB")
    out = BytesIO()
    small.save(out, format="WEBP", method=0, quality=80)
    return out.getvalue(), small.size


def _shrinkable(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        return image if image.mode in {"LA", "RGBA"} else image.convert("RGBA")
    if image.mode in _SHRINKABLE:
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _encode_clean(image: Image.Image, container: Container, sampling: int) -> bytes:
    options: dict[str, object]
    if container.format == "JPEG":
        options = {"quality": 95, "subsampling": sampling}
    elif container.format == "WEBP" and container.is_lossless and image.width * image.height <= _LOSSLESS_WEBP_PIXELS:
        options = {"lossless": True, "exact": True, "method": 0, "quality": 20}  # quality is effort here
    elif container.format == "WEBP":
        options = {"quality": 95, "method": 2}
    else:
        options = {"compress_level": 4}
    image.info = {name: image.info[name] for name in _KEPT_INFO if name in image.info}
    out = BytesIO()
    # WebP takes colours only from here, the others from `info` too.
    image.save(out, format=container.format, icc_profile=image.info.get("icc_profile"), exif=b"", **options)
    return out.getvalue()


def _facts(data: bytes, kind: str, size: tuple[int, int]) -> PictureFacts:
    mime_type, extension = _KINDS[kind]
    return PictureFacts(mime_type, *size, len(data), hashlib.sha256(data).hexdigest(), extension)
