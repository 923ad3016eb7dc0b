"""The HTTP port of a real gateway, before fakes of storage and generator."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from PIL import Image

from nanobatch.gateway.v1 import execution_pb2, execution_service_pb2, image_pb2
from nanobatch_gateway.adapters.links_hmac import HmacPictureLinks
from nanobatch_gateway.domain import LOCAL_CALLER
from nanobatch_gateway.http import server
from nanobatch_gateway.http.access import ROUTES
from nanobatch_runtime.ids import new_id
from nanobatch_runtime.testing import eventually

PNG_TYPE = "image/png"


def png(width: int = 8, height: int = 6, colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
async def web(world) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{world.app.http_address}", timeout=20) as client:
        yield client


def sample(world: Any) -> str:
    """Put an execution of ten pictures into storage: seven made, one failed, one running, one waiting."""
    execution_id = world.storage.new_execution("gemini-2.5-flash-image")
    execution = world.storage.executions[execution_id]
    execution.workflow_id = new_id()
    execution.state = execution_pb2.EXECUTION_STATE_PROCESSING
    stats = execution_pb2.ExecutionStats(
        total=10, pending=1, processing=1, completed=7, failed=1, completion_percentage=80, total_cost_micros=273_000
    )
    execution.stats.CopyFrom(stats)
    return execution_id


def stored_picture(world: Any, data: bytes, mime_type: str = PNG_TYPE) -> str:
    image_id = new_id()
    image = image_pb2.Image(
        id=image_id, mime_type=mime_type, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    world.storage.images[image_id] = (image, data)
    return image_id


def link_of(world: Any, image_id: str, name: str = "001-a-red-boat") -> str:
    keys = world.storage.keyring.derive_all("picture-link")
    base = f"http://{world.app.http_address}"
    return HmacPictureLinks(keys, world.clock, base).sign(LOCAL_CALLER, image_id, name)


# The batch's calls


async def test_an_execution_is_started_as_the_documentation_says(world, web) -> None:
    answer = await web.post(
        "/api/nano-banana/execute",
        files=[
            ("api_key", (None, "AIzaNobodysKey")),
            ("prompts_text", (None, "prompt1\\n\\nprompt2")),
            ("reference_images", ("a.png", png(), PNG_TYPE)),
            ("reference_images", ("b.png", png(colour="blue"), PNG_TYPE)),
        ],
    )
    assert answer.status_code == 200, answer.text
    (created,) = world.storage.creates
    assert [prompt.text for prompt in created.prompts] == ["prompt1", "prompt2"]
    assert len(created.settings.reference_image_ids) == 2
    assert set(created.settings.reference_image_ids) == set(world.storage.images)
    assert world.storage.opened(created.credential) == "AIzaNobodysKey"
    body = answer.json()
    assert list(body) == ["success", "data"]
    assert list(body["data"]) == ["execution_id", "workflow_id", "status", "total_prompts", "estimated_cost"]


async def test_counts_and_money_are_those_of_the_documentation(world, web) -> None:
    execution_id = sample(world)
    answer = await web.get(f"/api/executions/{execution_id}")
    assert answer.text == (
        f'{{"success":true,"data":{{"id":"{execution_id}","status":"processing","stats":{{"total_prompts":10,'
        '"successful":7,"failed":1,"pending":2,"completion_percentage":80,"total_cost":0.27}}}'
    )


FORM = {"model": "sandbox", "prompts_text": "a red boat\n\na blue boat"}


async def execute(web: httpx.AsyncClient, form: dict[str, str], pictures: Any = (), **headers: str) -> httpx.Response:
    parts: list[Any] = [(name, (None, text)) for name, text in form.items()]
    parts += [("reference_images", (f"{number}.png", data, PNG_TYPE)) for number, data in enumerate(pictures)]
    return await web.post("/api/nano-banana/execute", files=parts, headers=headers)


def fields(answer: httpx.Response) -> list[tuple[str, str]]:
    body = answer.json()
    assert list(body) == ["success", "error"]
    assert body["success"] is False
    assert list(body["error"]) == ["code", "message", "fields"]
    return [(each["field"], each["reason"]) for each in body["error"]["fields"]]


async def test_what_is_wrong_with_one_picture_is_said_at_once_and_nothing_is_stored(world, web) -> None:
    async def send(form: dict[str, str], *pictures: bytes) -> httpx.Response:
        parts: list[Any] = [(name, (None, text)) for name, text in form.items()]
        parts += [("image", ("a.png", data, PNG_TYPE)) for data in pictures]
        return await web.post("/api/generate-image", files=parts)

    answer = await send({"prompt": " ", "aspect_ratio": "7:5", "prompts_text": "a", "variations": "2"}, b"no picture")
    assert answer.status_code == 400
    assert sorted(fields(answer)) == [
        ('"prompts_text"', "UNKNOWN_FIELD"),
        ('"variations"', "UNKNOWN_FIELD"),
        ("api_key", "REQUIRED"),
        ("aspect_ratio", "NOT_OFFERED"),
        ("image", "NOT_A_PICTURE"),
        ("prompt", "REQUIRED"),
    ]
    for pictures in ((), (png(), png())):
        assert fields(await send({"model": "sandbox", "prompt": "a fox"}, *pictures)) == [("image", "REQUIRED")]
    assert not world.storage.creates
    assert not world.storage.images


async def test_the_status_of_one_picture_is_asked_for_by_both_ids(world, web) -> None:
    execution_id, image_id = sample(world), new_id()
    world.storage.results[execution_id] = [
        execution_pb2.Result(
            id=new_id(),
            source_image_id=image_id,
            state=execution_pb2.RESULT_STATE_FAILED,
            cost_micros=39_000,
            error=execution_pb2.ResultError(
                code="CONTENT_BLOCKED", message="Withheld.", charged=execution_pb2.CHARGED_YES
            ),
        )
    ]

    async def ask(**body: str) -> httpx.Response:
        return await web.post("/api/check-generation-status", json=body)

    answer = await ask(imageId=image_id, taskId=execution_id)
    assert answer.json() == {
        "success": True,
        "data": {
            "imageId": image_id,
            "taskId": execution_id,
            "status": "failed",
            "result_url": None,
            "processing_time_ms": None,
            "api_cost": 0.039,
            "error": {"code": "CONTENT_BLOCKED", "message": "Withheld.", "charged": "YES", "retryable": False},
        },
    }
    other = await ask(imageId=new_id(), taskId=execution_id)
    assert (other.status_code, other.json()["error"]["code"]) == (404, "IMAGE_NOT_FOUND")
    unknown = await ask(imageId=image_id, taskId=new_id())
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "EXECUTION_NOT_FOUND")
    assert sorted(fields(await ask(imageId="17", taskId=""))) == [("imageId", "MALFORMED"), ("taskId", "REQUIRED")]
    assert sorted(fields(await ask(imageId=image_id, colour="red"))) == [
        ("colour", "MALFORMED"),
        ("taskId", "MALFORMED"),
    ]
    path, kind = "/api/check-generation-status", {"content-type": "application/json"}
    assert fields(await web.post(path, content=b"{", headers=kind)) == [("body", "MALFORMED")]
    assert (await web.post(path, content=b" " * 9_000, headers=kind)).status_code == 413
    assert (await web.post(path, data={"imageId": "a"})).status_code == 415


async def test_the_same_key_is_the_same_execution_pictures_included(world, web) -> None:
    key = new_id()
    answers = [await execute(web, FORM, [png()], **{"Idempotency-Key": key}) for _ in range(3)]
    assert {answer.json()["data"]["execution_id"] for answer in answers} == {answers[0].json()["data"]["execution_id"]}
    assert len(world.storage.executions) == 1
    assert len(world.storage.images) == 1
    other = await execute(web, FORM, [png(colour="blue")], **{"Idempotency-Key": key})
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "REQUEST_ID_REUSED"


async def test_both_doors_know_each_others_requests(world, web) -> None:
    key = new_id()
    first = await execute(web, FORM, **{"Idempotency-Key": key})
    request = execution_service_pb2.CreateExecutionRequest(request_id=key, **FORM)
    again = await world.executions.CreateExecution(request)
    assert again.execution.id == first.json()["data"]["execution_id"]


async def test_everything_that_is_wrong_is_said_at_once_and_nothing_is_stored(world, web) -> None:
    bad = {
        "api_key": "",
        "prompts_text": " ",
        "aspect_ratio": "7:5",
        "variations": "two",
        "seed": "-1",
        "colour": "red",
    }
    answer = await execute(web, bad, [b"no picture", png()], **{"Idempotency-Key": "my request"})
    assert answer.status_code == 400
    assert sorted(fields(answer)) == [
        ('"colour"', "UNKNOWN_FIELD"),
        ("Idempotency-Key", "MALFORMED"),
        ("api_key", "REQUIRED"),
        ("aspect_ratio", "NOT_OFFERED"),
        ("prompts_text", "REQUIRED"),
        ("reference_images[0]", "NOT_A_PICTURE"),
        ("seed", "OUT_OF_RANGE"),
        ("variations", "MALFORMED"),
    ]
    assert not world.storage.creates
    assert not world.storage.images


@pytest.mark.parametrize("text", ["prompt1\n\nprompt2", "prompt1\r\n\r\nprompt2", "prompt1\\n\\nprompt2"])
async def test_real_and_literal_line_breaks_separate(world, web, text) -> None:
    answer = await execute(web, {"model": "sandbox", "prompts_text": text})
    assert answer.status_code == 200
    assert [prompt.text for prompt in world.storage.creates[-1].prompts] == ["prompt1", "prompt2"]


async def test_hostile_forms_get_a_plain_answer_and_change_nothing(world, web) -> None:
    prompts = {"model": "sandbox", "prompts_text": "\n\n".join(f"prompt {number}" for number in range(101))}
    assert fields(await execute(web, prompts)) == [("prompts_text", "TOO_MANY")]
    assert fields(await execute(web, FORM, [png()] * 11)) == [("reference_images", "TOO_MANY")]
    assert fields(await execute(web, FORM, [bytes(21 * 2**20)])) == [("reference_images[0]", "TOO_LONG")]
    parts = [(f"field{number}", (None, "x")) for number in range(1_000)]
    assert (await web.post("/api/nano-banana/execute", files=parts)).json()["error"]["code"] == "MALFORMED_FORM"
    long = await execute(web, {"model": "sandbox", "prompts_text": "x" * 6 * 2**20})
    assert long.json()["error"]["code"] == "MALFORMED_FORM"
    latin = await web.post("/api/nano-banana/execute", files=[("prompts_text", (None, "gar\xe7on".encode("latin-1")))])
    assert latin.json()["error"]["code"] == "MALFORMED_FORM"
    as_json = await web.post("/api/nano-banana/execute", json=FORM)
    assert (as_json.status_code, as_json.json()["error"]["code"]) == (415, "MEDIA_TYPE_NOT_SUPPORTED")
    boundless = await web.post(
        "/api/nano-banana/execute", content=b"x", headers={"content-type": "multipart/form-data"}
    )
    assert (boundless.status_code, boundless.json()["error"]["code"]) == (400, "MALFORMED_FORM")
    assert not world.storage.creates
    assert not world.storage.images
    assert not [path for folder in world.uploads.iterdir() for path in folder.iterdir() if path.name != ".lock"]


async def test_a_body_beyond_all_limits_is_refused_before_it_is_read(world) -> None:
    reader, writer = await asyncio.open_connection(*world.app.http_address.split(":"))
    writer.write(
        b"POST /api/nano-banana/execute HTTP/1.1\r\nHost: " + world.app.http_address.encode() + b"\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 99999999999\r\n\r\n"
    )
    server_says = asyncio.create_task(reader.readline())
    writer.write(bytes(17 * 2**20))  # what it throws away before it answers and hangs up
    assert (await asyncio.wait_for(server_says, 20)).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_results_are_listed_as_the_documentation_says(world, web) -> None:
    execution_id = sample(world)
    answer = await web.get(f"/api/executions/{execution_id}/results")
    (only,) = {tuple(each) for each in answer.json()["data"]}
    assert only == (
        "id",
        "batch_index",
        "prompt_text",
        "status",
        "result_url",
        "processing_time_ms",
        "api_cost",
    )


async def test_every_error_has_the_one_form(world, web) -> None:
    unknown = new_id()
    for method, path, status, code in [
        ("GET", "/nowhere", 404, "ROUTE_NOT_FOUND"),
        ("GET", "/api/executions/", 404, "ROUTE_NOT_FOUND"),
        ("DELETE", f"/api/executions/{unknown}", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/nano-banana/execute", 405, "METHOD_NOT_ALLOWED"),
        ("GET", f"/api/executions/{unknown}", 404, "EXECUTION_NOT_FOUND"),
        ("GET", f"/api/executions/{unknown}/results", 404, "EXECUTION_NOT_FOUND"),
        ("GET", f"/api/executions/{unknown}/events", 404, "EXECUTION_NOT_FOUND"),
        ("GET", "/api/executions/17", 400, "INVALID_REQUEST"),
        ("GET", "/api/executions/17/results", 400, "INVALID_REQUEST"),
        ("GET", f"/api/executions/{unknown}/events?after_revision=-1", 400, "INVALID_REQUEST"),
        ("GET", f"/images/{unknown}", 403, "LINK_INVALID"),
    ]:
        answer = await web.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), path
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        fields(answer)
        if status == 405:
            assert answer.headers["allow"] in {"GET", "POST", "GET, HEAD", "HEAD, GET"}
    await world.storage.stop()
    away = await web.get(f"/api/executions/{unknown}")
    assert (away.status_code, away.json()["error"]["code"]) == (503, "STORAGE_UNAVAILABLE")
    assert int(away.headers["retry-after"]) >= 1


async def test_what_is_no_http_is_told_so(world) -> None:
    for garbage in (b"hello\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 20_000):
        reader, writer = await asyncio.open_connection(*world.app.http_address.split(":"))
        writer.write(garbage)
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.startswith(b"HTTP/1.1 400")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "MALFORMED_REQUEST"
        writer.close()


async def test_headers_that_never_end_end_the_connection(world, monkeypatch) -> None:
    monkeypatch.setattr(server, "HEADER_LIMIT", timedelta(milliseconds=300))
    reader, writer = await asyncio.open_connection(*world.app.http_address.split(":"))
    writer.write(b"GET / HTTP/1.1\r\nHost:")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 20)
    writer.close()


# The table of rules


async def test_every_route_has_a_rule_and_every_rule_a_route(web) -> None:
    described = (await web.get("/openapi.json")).json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in described.items() for method in methods}
    assert routes | {"GET /openapi.json", "GET /docs"} == set(ROUTES)


async def test_the_page_of_the_description_needs_nobody_else(web) -> None:
    page = await web.get("/docs")
    assert page.status_code == 200
    for path in ("/api/nano-banana/execute", "/api/executions/{execution_id}/results", "/images/{image_id}"):
        assert path in page.text
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page.text)
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


# Doors


async def test_foreign_names_and_pages_are_refused_everywhere(world, web) -> None:
    port = world.app.http_address.rpartition(":")[2]
    image = link_of(world, stored_picture(world, png())).partition(port)[2]
    for path in ("/docs", "/nowhere", f"/api/executions/{sample(world)}", image):
        for host in (
            f"127.0.0.1.evil.test:{port}",
            f"evil.test:{port}",
            "127.0.0.1",
            f"127.0.0.1:{int(port) - 1}",
            f"localhost.:{port}",
            f"user@127.0.0.1:{port}",
            f"0.0.0.0:{port}",
            f"[::]:{port}",
            "",
        ):
            answer = await web.get(path, headers={"Host": host})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "HOST_NOT_ALLOWED"), (path, host)
        for origin in (
            "null",
            "https://evil.test",
            f"https://127.0.0.1:{port}",
            f"http://127.0.0.1:{port}.evil.test",
            "http://127.0.0.1",
            f"http://evil.test:{port}",
            "file://",
        ):
            answer = await web.get(path, headers={"Origin": origin})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "ORIGIN_NOT_ALLOWED"), (path, origin)
            assert "access-control-allow-origin" not in answer.headers


async def test_our_own_names_are_let_in(world, web) -> None:
    port = world.app.http_address.rpartition(":")[2]
    for name in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        answer = await web.get("/docs", headers={"Host": name, "Origin": f"http://{name.lower()}"})
        assert answer.status_code == 200, name


async def test_a_request_without_a_host_is_refused(world) -> None:
    reader, writer = await asyncio.open_connection(*world.app.http_address.split(":"))
    writer.write(b"GET /docs HTTP/1.0\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 20)
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"HOST_NOT_ALLOWED" in answer
    writer.close()


@pytest.mark.parametrize("site", ["cross-site", "same-site", "rubbish"])
async def test_a_page_of_another_site_changes_nothing(world, web, site) -> None:
    answer = await execute(web, FORM, **{"Sec-Fetch-Site": site})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "ORIGIN_NOT_ALLOWED")
    assert not world.storage.creates
    assert (await execute(web, FORM, **{"Sec-Fetch-Site": "same-origin"})).status_code == 200


async def test_a_page_that_was_named_may_call_and_read(idle_world) -> None:
    await idle_world.storage.start()
    await idle_world.generator.start()
    page = "https://app.example"
    async with idle_world.gateway(cors_origin=f"{page}, https://other.example") as app:
        await eventually(app.started.done)
        async with httpx.AsyncClient(base_url=f"http://{app.http_address}") as web:
            asked = {"Origin": page, "Access-Control-Request-Method": "POST", "Sec-Fetch-Site": "cross-site"}
            preflight = await web.options("/api/nano-banana/execute", headers=asked)
            assert preflight.status_code == 204
            assert "Idempotency-Key" in preflight.headers["access-control-allow-headers"]
            made = await execute(web, FORM, Origin=page, **{"Sec-Fetch-Site": "cross-site"})
            missing = await web.get("/nowhere", headers={"Origin": page})
            assert (made.status_code, missing.status_code) == (200, 404)
            for answer in (preflight, made, missing):
                assert answer.headers["access-control-allow-origin"] == page
                assert "Origin" in answer.headers["vary"]
            assert "access-control-allow-origin" not in (await web.get("/docs")).headers
            stranger = await web.options("/docs", headers=asked | {"Origin": "https://app.example.evil.test"})
            assert stranger.status_code == 403


# Pictures


async def test_a_picture_is_served_inert_and_cacheable(world, web) -> None:
    data = png(300, 200)
    answer = await web.get(link_of(world, stored_picture(world, data)))
    assert answer.content == data
    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in _FIXED} == _FIXED
    assert answer.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["content-disposition"] == 'inline; filename="001-a-red-boat.png"'
    age = re.fullmatch(r"private, max-age=(\d+), immutable", answer.headers["cache-control"])
    assert age is not None
    assert 86_400 <= int(age[1]) <= 2 * 86_400


_FIXED = {
    "content-type": PNG_TYPE,
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "cross-origin-resource-policy": "cross-origin",
    "accept-ranges": "bytes",
}


async def test_a_picture_is_saved_under_the_name_of_its_prompt(world, web) -> None:
    link = link_of(world, stored_picture(world, png()), "012-a-fox-v2")
    answer = await web.get(f"{link}&download")
    assert answer.headers["content-disposition"] == 'attachment; filename="012-a-fox-v2.png"'


async def test_what_is_cached_is_not_sent_again(world, web) -> None:
    link = link_of(world, stored_picture(world, png()))
    etag = (await web.get(link)).headers["etag"]
    for given in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = await web.get(link, headers={"If-None-Match": given})
        assert (answer.status_code, answer.content) == (304, b""), given
        assert answer.headers["etag"] == etag
    assert (await web.get(link, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_a_head_has_the_headers_alone(world, web) -> None:
    link = link_of(world, stored_picture(world, png()))
    named = {"x-request-id": "the-same-for-both"}
    head, whole = await web.head(link, headers=named), await web.get(link, headers=named)
    assert head.content == b""
    assert {**head.headers, "date": ""} == {**whole.headers, "date": ""}


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, 199_999),
        ("bytes=65535-65536", 65_535, 65_536),
        ("bytes=100000-999999", 100_000, 199_999),
        ("bytes=-1", 199_999, 199_999),
        ("bytes=-999999", 0, 199_999),
        ("bytes=199999-199999", 199_999, 199_999),
    ],
)
async def test_a_part_of_a_picture(world, web, asked, first, last) -> None:
    data = bytes(range(256)) * 782
    data = data[:200_000]
    link = link_of(world, stored_picture(world, data))
    answer = await web.get(link, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == data[first : last + 1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/200000"
    stale = await web.get(link, headers={"Range": asked, "If-Range": '"other"'})
    assert (stale.status_code, stale.content) == (200, data)


@pytest.mark.parametrize("asked", ["bytes=200-", "bytes=200-300", "bytes=5-2", "bytes=-0"])
async def test_a_part_that_does_not_exist(world, web, asked) -> None:
    answer = await web.get(link_of(world, stored_picture(world, bytes(200))), headers={"Range": asked})
    assert (answer.status_code, answer.json()["error"]["code"]) == (416, "RANGE_NOT_SATISFIABLE")
    assert answer.headers["content-range"] == "bytes */200"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "bytes=" + ",".join(["0-1"] * 3_000), "lines=0-1", "bytes", "bytes=a-b", "bytes=-"]
)
async def test_several_parts_and_nonsense_get_the_whole_picture_once(world, web, asked) -> None:
    data = png(50, 50)
    answer = await web.get(link_of(world, stored_picture(world, data)), headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, data)


async def test_an_address_ends_at_the_next_but_one_midnight(world, web) -> None:
    image_id = stored_picture(world, png())
    morning = link_of(world, image_id)
    world.clock.advance(timedelta(hours=23, minutes=59))
    assert link_of(world, image_id) == morning
    world.clock.advance(timedelta(hours=24))
    assert (await web.get(morning)).status_code == 200
    world.clock.advance(timedelta(minutes=1))
    expired = await web.get(morning)
    assert (expired.status_code, expired.json()["error"]["code"]) == (403, "LINK_INVALID")
    assert link_of(world, image_id) != morning


async def test_an_address_is_good_for_its_own_picture_alone(world, web) -> None:
    mine, other = stored_picture(world, png()), stored_picture(world, png(9, 9))
    link = link_of(world, mine)
    forged = link.replace(mine, other)
    answers = [await web.get(forged), await web.get(link.partition("?")[0]), await web.get(f"{link}A")]
    assert {(answer.status_code, answer.content) for answer in answers} == {(403, answers[0].content)}
    twice = await web.get(f"{link}&user={new_id()}")
    assert twice.status_code == 403


async def test_a_picture_that_is_gone_is_not_found(world, web) -> None:
    answer = await web.get(link_of(world, new_id()))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "IMAGE_NOT_FOUND")


async def test_a_broken_stream_is_never_taken_for_a_whole_picture(world, web) -> None:
    data = png(200, 200)
    image_id = stored_picture(world, data)
    world.storage.images[image_id] = (world.storage.images[image_id][0], data[:50])
    with pytest.raises(httpx.RemoteProtocolError):
        await web.get(link_of(world, image_id))
    assert (await web.get("/docs")).status_code == 200


# Addresses in results


async def test_results_carry_addresses_that_stay_the_same(world, web) -> None:
    data, small = png(64, 64), png(8, 8)
    image_id, thumbnail_id = stored_picture(world, data), stored_picture(world, small)
    execution_id = world.storage.new_execution()
    result = execution_pb2.Result(
        id=new_id(), revision=1, prompt_text="A red boat!", image_id=image_id, thumbnail_image_id=thumbnail_id
    )
    journal = world.storage.journals[execution_id]
    journal.updates.append(execution_service_pb2.WatchExecutionResponse(revision=1, result=result))
    await journal.end()
    request = execution_service_pb2.WatchExecutionRequest(execution_id=execution_id)
    seen = []
    for _ in range(2):
        updates = [update async for update in world.executions.WatchExecution(request)]
        seen += [(each.result.image_url, each.result.thumbnail_url) for each in updates if each.HasField("result")]
        world.clock.advance(timedelta(hours=5))
    assert seen[0] == seen[1]
    assert seen[0][0].startswith(f"http://{world.app.http_address}/images/{image_id}?")
    assert (await web.get(seen[0][0])).content == data
    assert (await web.get(seen[0][1])).content == small
    assert parse_qs(urlsplit(seen[0][0]).query)["name"] == ["001-a-red-boat"]


async def test_without_the_port_there_are_no_addresses(idle_world) -> None:
    await idle_world.storage.start()
    await idle_world.generator.start()
    async with idle_world.gateway(http="off") as app:
        await eventually(app.started.done)
        execution_id = idle_world.storage.new_execution()
        journal = idle_world.storage.journals[execution_id]
        result = execution_pb2.Result(id=new_id(), revision=1, image_id=new_id())
        journal.updates.append(execution_service_pb2.WatchExecutionResponse(revision=1, result=result))
        await journal.end()
        request = execution_service_pb2.WatchExecutionRequest(execution_id=execution_id)
        updates = [update async for update in idle_world.executions.WatchExecution(request)]
        assert [update.result.image_url for update in updates if update.HasField("result")] == [""]
        assert app.http_address == ""


# Events


async def read_events(web: httpx.AsyncClient, path: str, **headers: str) -> list[dict[str, str]]:
    async with web.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        text = (await answer.aread()).decode()
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


async def test_events_tell_every_change_and_end_with_the_execution(world, web) -> None:
    execution_id = world.storage.new_execution()
    journal = world.storage.journals[execution_id]
    await journal.add(3, prompt="two\nlines, <b>bold</b>, \u2028 and \U0001f34c")
    await journal.end()
    events = await read_events(web, f"/api/executions/{execution_id}/events")
    assert [(event.get("id"), event["event"]) for event in events] == [
        (None, "progress"),
        ("1", "result"),
        ("2", "result"),
        ("3", "result"),
        (None, "end"),
    ]
    assert json.loads(events[1]["data"])["result"]["prompt_text"] == "two\nlines, <b>bold</b>, \u2028 and \U0001f34c"


async def test_events_resume_after_the_last_one_seen(world, web) -> None:
    execution_id = world.storage.new_execution()
    journal = world.storage.journals[execution_id]
    await journal.add(5)
    await journal.end()
    path = f"/api/executions/{execution_id}/events"
    resumed = await read_events(web, path, **{"Last-Event-ID": "3"})
    assert [event["id"] for event in resumed if "id" in event] == ["4", "5"]
    asked = await read_events(web, f"{path}?after_revision=4")
    assert [event["id"] for event in asked if "id" in event] == ["5"]


async def test_whoever_leaves_is_watched_for_no_longer(world, web) -> None:
    execution_id = world.storage.new_execution()
    await world.storage.journals[execution_id].add(1)
    async with web.stream("GET", f"/api/executions/{execution_id}/events") as answer:
        assert answer.status_code == 200
        await anext(answer.aiter_text())
        await eventually(lambda: world.generator.open_watches == 1)
    await eventually(lambda: world.generator.open_watches == 0)


async def test_events_of_a_stopping_gateway_say_where_to_go_on(idle_world) -> None:
    await idle_world.storage.start()
    await idle_world.generator.start()
    execution_id = idle_world.storage.new_execution()
    await idle_world.storage.journals[execution_id].add(2)
    async with httpx.AsyncClient(timeout=20) as client:
        text = ""
        async with idle_world.gateway() as app:
            await eventually(app.started.done)
            url = f"http://{app.http_address}/api/executions/{execution_id}/events"
            request = client.build_request("GET", url)
            answer = await client.send(request, stream=True)
            chunks = answer.aiter_text()
            while "id: 2" not in text:
                text += await anext(chunks)
        text += "".join([chunk async for chunk in chunks])
    assert "event: error" in text
    assert "WATCH_MOVED" in text
