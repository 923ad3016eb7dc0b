"""Multipart forms, bounded: few parts, little text, pictures to disk while they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import PurePath

from fastapi import Request
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from nanobatch_catalog import CATALOG_DATE, list_models
from nanobatch_gateway.domain import MAX_UPLOAD_BYTES
from nanobatch_gateway.fields import Violations, shown
from nanobatch_gateway.http.errors import MediaTypeError
from nanobatch_gateway.submit import PICTURES, IncomingPicture
from nanobatch_runtime.errors import InvalidArgumentError
from nanobatch_runtime.rpc.options import CHUNK_BYTES

MAX_PICTURES = max(model.max_reference_images for model in list_models(CATALOG_DATE))
MAX_TEXT_BYTES = 5 * 1024 * 1024
"""All text fields together: 100 prompts of 10,000 characters are at most 4 MB."""
MAX_FIELDS = 32
MAX_BODY_BYTES = MAX_PICTURES * MAX_UPLOAD_BYTES + 2 * MAX_TEXT_BYTES


class MalformedFormError(InvalidArgumentError):
    """The body is no multipart form, or one with more in it than is taken."""

    reason = "MALFORMED_FORM"


@dataclass(slots=True)
class Form:
    """What came: texts by field, and pictures in their order."""

    texts: dict[str, str] = field(default_factory=dict, repr=False)
    pictures: list[UploadFile] = field(default_factory=list)

    def incoming(self) -> list[IncomingPicture]:
        """Return the pictures as the use case takes them."""
        return [IncomingPicture(PurePath(each.filename or "").name, _chunks(each)) for each in self.pictures]


@asynccontextmanager
async def open_form(
    request: Request, known: Collection[str], found: Violations, *, pictures: str = PICTURES
) -> AsyncIterator[Form]:
    """Read a request's form; its ``pictures``, as their field is called, lie in nameless files while the context is open.

    Notes fields that are unknown, twice there or of the wrong sort; raises MediaTypeError and MalformedFormError.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise MediaTypeError("Send the fields as multipart/form-data, as curl -F does.")
    parser = _BoundedParser(request.headers, request.stream(), max_files=MAX_PICTURES * 2, max_fields=MAX_FIELDS)
    try:
        parsed = await parser.parse()
    except MultiPartException as error:
        raise MalformedFormError(f"The form cannot be read: {error.message}") from None
    try:
        yield _sorted_out(parsed.multi_items(), known, found, pictures)
    finally:
        await parsed.close()


def _sorted_out(
    items: list[tuple[str, str | UploadFile]], known: Collection[str], found: Violations, pictures: str
) -> Form:
    form = Form()
    for name, value in items:
        if name == pictures:
            if isinstance(value, str):
                found.add(pictures, f"Send pictures as files; with curl write {pictures}=@FILE.", "MALFORMED")
            elif value.filename or value.size:  # a browser sends an empty part where no file was chosen
                form.pictures.append(value)
        elif name not in known:
            found.add(shown(name), f"There is no field {shown(name)} here.", "UNKNOWN_FIELD")
        elif not isinstance(value, str):
            found.add(name, f"Send it as text; with curl write {name}=<FILE.", "MALFORMED")
        elif name in form.texts:
            found.add(name, "The field is there twice.", "CONFLICT")
        else:
            form.texts[name] = value
    return form


class _BoundedParser(MultiPartParser):
    """Starlette's parser with a bound on all text together, and UTF-8 or nothing: a garbled prompt costs money."""

    max_part_size = MAX_TEXT_BYTES

    def __init__(
        self, headers: Headers, stream: AsyncGenerator[bytes, None], *, max_files: int, max_fields: int
    ) -> None:
        super().__init__(headers, stream, max_files=max_files, max_fields=max_fields, max_part_size=MAX_TEXT_BYTES)
        self._text_bytes = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self._text_bytes += end - start
            if self._text_bytes > MAX_TEXT_BYTES:
                raise MultiPartException(f"its text is longer than {MAX_TEXT_BYTES // 2**20} MiB.")
        super().on_part_data(data, start, end)

    def on_part_end(self) -> None:
        if self._current_part.file is None:
            try:
                self._current_part.data.decode()
            except UnicodeDecodeError:
                raise MultiPartException("a text is not UTF-8.") from None
            self._charset = "utf-8"
        super().on_part_end()


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(CHUNK_BYTES):
        yield chunk
