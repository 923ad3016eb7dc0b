"""Archives: names, tables, and what is in memory while one is sent."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import tracemalloc
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanobatch_gateway import manifest
from nanobatch_gateway.domain import (
    LOCAL_CALLER,
    Caller,
    ExportedResult,
    ExportedRun,
    InvalidRequestError,
    StorageUnavailableError,
)
from nanobatch_gateway.export import ExportExecution
from nanobatch_runtime.ids import new_id

MIB = 1024 * 1024
MADE = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
ERROR = {"code": "CONTENT_BLOCKED", "message": "=1+1 was withheld", "retryable": False, "charged": "MAYBE"}


def result(index: int, prompt: str = "a fox", **fields: Any) -> ExportedResult:
    made = {"state": "COMPLETED", "image_id": new_id(), "mime_type": "image/png"}
    return ExportedResult(new_id(), index, prompt=prompt, **{"variation": 0, **made, **fields})


def run_of(*results: ExportedResult) -> ExportedRun:
    return ExportedRun(new_id(), "sandbox", "COMPLETED", MADE, 39_000, results)


class Store:
    """Pictures by id: their bytes, or how long they are and how much of it comes."""

    def __init__(self, run: ExportedRun, pictures: dict[str, bytes], *, promised: int | None = None) -> None:
        self.run = run
        self.pictures = pictures
        self.promised = promised
        self.open = 0
        self.opened = 0

    async def read_run(self, _caller: Caller, _execution_id: str) -> ExportedRun:
        return self.run

    @asynccontextmanager
    async def read(self, _caller: Caller, image_id: str) -> AsyncIterator[AsyncIterator[Any]]:
        data = self.pictures[image_id]
        self.open += 1
        self.opened += 1

        async def pieces() -> AsyncIterator[Any]:
            yield SimpleNamespace(image=SimpleNamespace(size_bytes=self.promised or len(data)))
            for start in range(0, len(data), 256 * 1024):
                yield SimpleNamespace(chunk=data[start : start + 256 * 1024])

        try:
            yield pieces()
        finally:
            self.open -= 1


def exporting(store: Store, **options: Any) -> ExportExecution:
    exports: Any = SimpleNamespace(read=store.read_run)
    images: Any = store
    return ExportExecution(exports, images, **options)


async def archive_of(store: Store, result_ids: tuple[str, ...] = ()) -> bytes:
    async with exporting(store)(LOCAL_CALLER, store.run.id, result_ids) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_an_archive_holds_the_pictures_and_tells_of_the_rest() -> None:
    good, other = result(0, "Ein Fuchs, größer"), result(1, variation=1, mime_type="image/jpeg")
    bad = result(2, "=HYPERLINK()", state="FAILED", image_id="", error=ERROR)
    pictures = {good.image_id: b"x" * (3 * MIB + 7), other.image_id: b"y"}
    store = Store(run_of(good, other, bad), pictures)
    data = await archive_of(store)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["manifest.json", "manifest.csv", "001-ein-fuchs-grosser.png", "002-a-fox-v2.jpg"]
        for one, name in ((good, "001-ein-fuchs-grosser.png"), (other, "002-a-fox-v2.jpg")):
            assert hashlib.sha256(archive.read(name)).digest() == hashlib.sha256(pictures[one.image_id]).digest()
            assert archive.getinfo(name).compress_type == zipfile.ZIP_STORED
        told = json.loads(archive.read("manifest.json"))
        rows = list(csv.DictReader(io.StringIO(archive.read("manifest.csv").decode("utf-8-sig"), newline="")))
    assert [each["file"] for each in told["results"]] == ["001-ein-fuchs-grosser.png", "002-a-fox-v2.jpg", None]
    assert told["results"][2]["error"] == ERROR
    assert rows[2]["prompt"] == "'=HYPERLINK()"
    assert (rows[2]["error_code"], rows[2]["charged"], rows[2]["file"]) == ("CONTENT_BLOCKED", "MAYBE", "")
    assert rows[2]["error_message"] == "'=1+1 was withheld"
    assert await archive_of(store) == data  # the very same, whenever it is asked for


async def test_only_the_chosen_ones_come() -> None:
    results = [result(number) for number in range(3)]
    store = Store(run_of(*results), {each.image_id: b"z" for each in results})
    with zipfile.ZipFile(io.BytesIO(await archive_of(store, (results[1].id,)))) as archive:
        assert archive.namelist()[2:] == ["002-a-fox.png"]
        assert len(json.loads(archive.read("manifest.json"))["results"]) == 1


async def test_what_is_not_of_this_run_is_named() -> None:
    store = Store(run_of(result(0)), {})
    with pytest.raises(InvalidRequestError) as caught:
        await archive_of(store, (store.run.results[0].id, new_id()))
    assert [(each.field, each.reason) for each in caught.value.violations] == [("result_ids[1]", "NOT_FOUND")]
    with pytest.raises(InvalidRequestError, match="401 are too many"):
        await archive_of(store, tuple(new_id() for _ in range(401)))
    with pytest.raises(InvalidRequestError, match="UUID"):
        await archive_of(store, ("nonsense",))


async def test_memory_stays_flat_while_a_hundred_megabytes_pass() -> None:
    picture = bytes(MIB)
    results = [result(number) for number in range(100)]
    store = Store(run_of(*results), dict.fromkeys([each.image_id for each in results], picture))
    passed = 0
    tracemalloc.start()
    try:
        async with exporting(store)(LOCAL_CALLER, store.run.id, ()) as pieces:
            async for piece in pieces:
                passed += len(piece)
                assert len(piece) <= 512 * 1024
                assert store.open <= 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert passed > 100 * MIB
    assert peak < 4 * MIB


async def test_a_reader_who_leaves_ends_the_reading() -> None:
    results = [result(number) for number in range(100)]
    store = Store(run_of(*results), dict.fromkeys([each.image_id for each in results], bytes(MIB)))
    async with exporting(store)(LOCAL_CALLER, store.run.id, ()) as pieces:
        async for _ in pieces:
            if store.opened == 3:
                break
    assert (store.open, store.opened) == (0, 3)


async def test_a_picture_that_breaks_off_breaks_the_archive() -> None:
    one = result(0)
    with pytest.raises(StorageUnavailableError, match="broke off"):
        await archive_of(Store(run_of(one), {one.image_id: b"half"}, promised=8))


async def test_storage_that_hangs_is_not_waited_for_for_ever() -> None:
    one = result(0)
    store = Store(run_of(one), {one.image_id: b"x"})

    @asynccontextmanager
    async def hanging(_caller: Caller, _image_id: str) -> AsyncIterator[AsyncIterator[Any]]:
        async def pieces() -> AsyncIterator[Any]:
            await asyncio.Event().wait()
            yield

        yield pieces()

    store.read = hanging  # type: ignore[assignment,method-assign]  # the same shape
    with pytest.raises(StorageUnavailableError, match="did not go on"):
        async with exporting(store, patience=timedelta(milliseconds=20))(LOCAL_CALLER, store.run.id, ()) as pieces:
            _ = [piece async for piece in pieces]


PROMPTS = st.one_of(st.sampled_from(["fox", "Fox", "fox v2", "fox-v2", "fox 2", "", "../../x", "con"]), st.text())


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), PROMPTS), max_size=400))
def test_no_two_pictures_get_the_same_name(wanted: list[tuple[int, int, str]]) -> None:
    results = [result(index, prompt, variation=variation) for index, variation, prompt in wanted]
    names = manifest.file_names(results)
    assert len(names) == len(set(names.values())) == len(results)
    for name in names.values():
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
        assert len(name) < 100


@given(st.text())
def test_no_cell_begins_a_formula(prompt: str) -> None:
    run = run_of(replace(result(0), prompt=prompt))
    [row] = csv.DictReader(io.StringIO(manifest.as_csv(run, {}).decode("utf-8-sig"), newline=""))
    cell = row["prompt"]
    assert cell[:1] not in tuple("=+-@\t\r\n")
    assert cell.removeprefix("'") == prompt.removeprefix("'")
