"""Pictures that tests give to the page."""

from io import BytesIO

from PIL import Image


def drawn(colour: str) -> bytes:
    """Return a small PNG of one colour."""
    file = BytesIO()
    Image.new("RGB", (64, 64), colour).save(file, "PNG")
    return file.getvalue()
