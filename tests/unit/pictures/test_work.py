"""The work itself, in this process: what is taken, what is refused, what becomes of it."""

from __future__ import annotations

import hashlib
import random
import struct
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from nanobatch_runtime.pictures import (
    NotAPictureError,
    PictureAnimatedError,
    PictureDamagedError,
    PictureError,
    PictureLimits,
    PictureTooLargeError,
    containers,
    work,
)

from .conftest import encoded, flat_png, noise

LIMITS = PictureLimits()
GPS = 0x8825
ORIENTATION = 0x0112


def camera_data(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x010F] = "Maker of cameras"
    exif.get_ifd(GPS)[1] = "N"
    return exif


@pytest.mark.parametrize(
    ("kind", "mime_type", "extension"),
    [("PNG", "image/png", "png"), ("JPEG", "image/jpeg", "jpg"), ("WEBP", "image/webp", "webp")],
)
def test_the_format_is_told_by_content_and_not_by_name(write, kind, mime_type, extension):
    data = encoded(noise(80, 48), kind)

    facts = work.check(write(data, "wrong.gif"), LIMITS).facts

    assert (facts.mime_type, facts.extension) == (mime_type, extension)
    assert (facts.width, facts.height) == (80, 48)
    assert facts.size_bytes == len(data)
    assert facts.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_of_png_is_taken_and_shrunk(write, tmp_path, mode):
    picture = noise(700, 350, "L") if mode == "I;16" else noise(700, 350, "RGBA").convert(mode)
    data = encoded(picture.convert("I").convert("I;16") if mode == "I;16" else picture, "PNG")

    checked = work.check(write(data), LIMITS, thumbnail=True)

    assert checked.thumbnail is not None
    assert (checked.thumbnail.facts.width, checked.thumbnail.facts.height) == (256, 128)


def test_cmyk_is_taken_and_its_thumbnail_is_in_colours_for_screens(write, tmp_path):
    data = encoded(Image.new("CMYK", (600, 300), (0, 255, 255, 0)), "JPEG")

    checked = work.check(write(data), LIMITS, thumbnail=True)

    with Image.open(BytesIO(checked.thumbnail.data)) as thumbnail:
        red, green, blue = thumbnail.convert("RGB").getpixel((100, 100))
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("a.png", b"I am a text and not a picture.\n", "no picture"),
        ("a.png", b"", "empty"),
        ("a.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        ("a.png", b'\n<?xml version="1.0"?><svg/>', "SVG"),
        ("a.png", encoded(noise(9, 9), "GIF"), "GIF"),
        ("a.png", encoded(noise(9, 9), "TIFF"), "TIFF"),
        ("a.png", encoded(noise(9, 9), "BMP"), "BMP"),
        ("a.png", b"8BPS\x00\x01" + bytes(40), "Photoshop"),
        ("a.png", b"SIMPLE  =                    T" + bytes(3000), "FITS"),
        ("a.png", b"\x00\x00\x00\x20ftypavif" + bytes(40), "AVIF"),
        ("a.png", b"<html><script>alert(1)</script></html>", "no picture"),
        ("a.png", b"PK\x03\x04" + bytes(40), "ZIP"),
    ],
)
def test_other_files_are_refused_by_what_they_are(write, name, data, word):
    with pytest.raises(NotAPictureError, match=word) as caught:
        work.check(write(data, name), LIMITS)
    assert caught.value.reason == "NOT_A_PICTURE"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("percent", [*range(5, 100, 5), 99.9])
def test_a_picture_that_is_cut_off_is_damaged(write, kind, percent):
    data = encoded(noise(400, 300), kind)

    with pytest.raises(PictureDamagedError):
        work.check(write(data[: int(len(data) * percent / 100)]), LIMITS)


@pytest.mark.parametrize(("kind", "missing"), [("PNG", 12), ("PNG", 1), ("JPEG", 2), ("JPEG", 1), ("WEBP", 1)])
def test_a_picture_that_lacks_only_its_end_is_damaged(write, kind, missing):
    with pytest.raises(PictureDamagedError):
        work.check(write(encoded(noise(400, 300), kind)[:-missing]), LIMITS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_flipped_bits_end_in_facts_or_in_a_picture_error(write, tmp_path, kind):
    data = encoded(noise(160, 120), kind, exif=camera_data(6))
    dice = random.Random(11)
    for _ in range(70):
        broken = bytearray(data)
        for _ in range(dice.randint(1, 8)):
            broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
        path = write(bytes(broken))
        for do in (partial(work.check, path, thumbnail=True), partial(work.prepare_upload, path, tmp_path / "out")):
            try:
                do(limits=LIMITS)
            except PictureError as error:
                assert error.message.endswith(".")  # noqa: PT017 - not raising is fine, too


def test_pixels_of_a_png_that_do_not_fit_their_checksum_are_damaged(write):
    data = bytearray(encoded(noise(160, 120), "PNG"))
    data[-14] ^= 1  # in the checksum of the pixels, which the decoder itself skips
    with pytest.raises(PictureDamagedError):
        work.check(write(bytes(data)), LIMITS)


def test_too_many_pixels_are_refused_by_the_header_alone(write):
    bomb = flat_png(20_000, 8_850)
    assert len(bomb) < 30_000
    cut = bomb[:60]  # nothing behind the header is needed to refuse it, except that the file is whole

    with pytest.raises(PictureTooLargeError, match=r"20000 x 8850 pixels; at most 24 megapixels"):
        work.check(write(bomb), LIMITS)
    with pytest.raises(PictureDamagedError):
        work.check(write(cut), LIMITS)


@pytest.mark.parametrize("size", [(16_383, 16_383), (16_383, 1_500)])
def test_a_webp_that_claims_many_pixels_is_refused_before_a_decoder_is_made(write, size, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    body = (
        b"VP8L" + struct.pack("<I", 6) + b"\x2f" + ((size[0] - 1) | (size[1] - 1) << 14).to_bytes(4, "little") + b"\0"
    )
    data = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body

    with pytest.raises(PictureTooLargeError):
        work.check(write(data), LIMITS)


@pytest.mark.parametrize("size", [(6_000, 4_000), (1, 65_535)])
def test_a_picture_at_the_ceiling_passes(write, tmp_path, size):
    checked = work.check(write(flat_png(*size)), LIMITS, thumbnail=True)

    assert (checked.facts.width, checked.facts.height) == size
    assert checked.thumbnail is not None
    assert max(checked.thumbnail.facts.width, checked.thumbnail.facts.height) == 256


def test_a_size_of_nothing_is_damaged(write):
    with pytest.raises(PictureDamagedError):
        work.check(write(flat_png(0, 10)), LIMITS)


def test_a_file_over_the_byte_ceiling_is_refused_unread(write):
    with pytest.raises(PictureTooLargeError, match="larger than 10 MiB"):
        work.check(write(bytes(10 * 1024 * 1024 + 1)), PictureLimits(max_bytes=10 * 1024 * 1024))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animated_pictures_are_refused_however_many_frames(write, kind):
    frames = [noise(40, 40).rotate(90 * turn) for turn in range(4)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])

    with pytest.raises(PictureAnimatedError, match="only still pictures"):
        work.check(write(data), LIMITS)


def test_a_frame_count_of_ten_thousand_is_refused_without_decoding_a_frame(write, monkeypatch):
    still = noise(40, 40)
    data = encoded(still, "PNG", save_all=True, append_images=[still.rotate(90)])
    at = data.index(b"acTL") - 4
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    body = struct.pack(">II", 10_000, 0)

    with pytest.raises(PictureAnimatedError):
        work.check(write(data[: at + 8] + body + data[at + 16 :]), LIMITS)


@pytest.mark.parametrize(
    ("size", "small"),
    [((1024, 1024), (256, 256)), ((1376, 768), (256, 143)), ((300, 900), (85, 256)), ((100, 60), (100, 60))],
)
def test_a_thumbnail_is_a_webp_of_the_same_shape(write, tmp_path, size, small):
    path = write(encoded(noise(*size), "PNG"))
    before = path.read_bytes()

    checked = work.check(path, LIMITS, thumbnail=True)

    assert checked.thumbnail is not None
    data = checked.thumbnail.data
    assert checked.thumbnail.facts.sha256 == hashlib.sha256(data).hexdigest()
    assert (checked.thumbnail.facts.width, checked.thumbnail.facts.height) == small
    with Image.open(BytesIO(data)) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("WEBP", small)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["picture"]


def test_a_thumbnail_keeps_holes_and_stands_upright_without_camera_data(write, tmp_path):
    picture = Image.new("RGBA", (800, 400), (255, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 400, 400))

    checked = work.check(write(encoded(picture, "PNG", exif=camera_data(6))), LIMITS, thumbnail=True)

    assert (checked.facts.width, checked.facts.height) == (800, 400)
    with Image.open(BytesIO(checked.thumbnail.data)) as thumbnail:
        assert thumbnail.size == (128, 256)
        assert thumbnail.getpixel((64, 20))[3] == 0
        assert thumbnail.getpixel((64, 235))[3] == 255
        assert not thumbnail.getexif()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_upload_of_nothing_but_pixels_keeps_its_bytes(write, tmp_path, kind):
    data = encoded(noise(300, 200), kind)

    facts = work.prepare_upload(write(data), tmp_path / "out", LIMITS)

    assert (tmp_path / "out").read_bytes() == data
    assert facts.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_upload_is_turned_upright_and_loses_camera_and_place(write, tmp_path, kind):
    picture = Image.new("RGB", (64, 32), (255, 255, 255))
    picture.paste((0, 0, 0), (0, 0, 32, 32))
    data = encoded(picture, kind, exif=camera_data(6))
    assert b"Maker of cameras" in data

    facts = work.prepare_upload(write(data), tmp_path / "out", LIMITS)

    clean = (tmp_path / "out").read_bytes()
    assert b"Maker of cameras" not in clean
    assert not containers.read(clean).has_extras
    assert (facts.width, facts.height) == (32, 64)
    assert facts.size_bytes == len(clean)
    with Image.open(BytesIO(clean)) as turned:
        assert turned.format == kind
        assert not turned.getexif()
        upper, lower = (turned.convert("L").getpixel((16, y)) for y in (8, 56))
    assert upper < 20
    assert lower > 235


@pytest.mark.parametrize(("kind", "lossless"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_a_lossless_upload_stays_lossless_when_cleaned(write, tmp_path, kind, lossless):
    picture = noise(200, 100, "RGBA")
    data = encoded(picture, kind, xmp=b"<x:xmpmeta/>", **lossless) if kind == "WEBP" else with_text(picture)

    work.prepare_upload(write(data), tmp_path / "out", LIMITS)

    with Image.open(tmp_path / "out") as clean:
        assert clean.tobytes() == picture.tobytes()
    assert not containers.read((tmp_path / "out").read_bytes()).has_extras


def with_text(picture: Image.Image) -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "Made by somebody")
    texts.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>")
    return encoded(picture, "PNG", pnginfo=texts)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_what_stands_behind_the_end_of_an_upload_is_gone(write, tmp_path, kind):
    tail = b"<html><script>alert(1)</script></html>PK\x03\x04"

    work.prepare_upload(write(encoded(noise(60, 60), kind) + tail), tmp_path / "out", LIMITS)

    assert b"script" not in (tmp_path / "out").read_bytes()


def test_comments_of_a_jpeg_go_and_its_colours_stay(write, tmp_path):
    profile = bytes(200)
    data = encoded(noise(60, 60), "JPEG", comment=b"hello there", icc_profile=profile)

    work.prepare_upload(write(data), tmp_path / "out", LIMITS)

    clean = (tmp_path / "out").read_bytes()
    assert b"hello there" not in clean
    with Image.open(BytesIO(clean)) as picture:
        assert picture.info["icc_profile"] == profile


def test_camera_data_that_is_broken_costs_nothing_but_itself(write, tmp_path):
    data = encoded(noise(60, 40), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff broken")

    assert work.prepare_upload(write(data), tmp_path / "out", LIMITS).width == 60
    assert work.check(write(data), LIMITS, thumbnail=True).thumbnail is not None


def test_a_failed_write_leaves_nothing_behind(write, tmp_path):
    path = write(encoded(noise(60, 40), "PNG"))
    with pytest.raises(OSError, match="No such file"):
        work.prepare_upload(path, tmp_path / "nowhere" / "out", LIMITS)
    assert [file.name for file in tmp_path.iterdir()] == ["picture"]


def test_a_missing_file_is_no_fault_of_a_picture(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        work.check(tmp_path / "nothing", LIMITS)
