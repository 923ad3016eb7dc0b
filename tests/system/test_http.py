"""The HTTP port of the real product: curl as the documentation has it, pictures in a folder, keys nowhere."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import subprocess
from io import BytesIO
from pathlib import Path

import httpx
from PIL import Image
from processes import ROOT, free_port, product

from nanobatch_client import Client
from nanobatch_client.models import ResultState
from nanobatch_gateway.http.access import ROUTES, Access
from nanobatch_runtime.ids import new_id
from nanobatch_runtime.testing import eventually

MODEL, CANARY = "gemini-2.5-flash-image", "AIzaCanaryCanaryCanaryCanaryCanary12345"


def curls(page: str) -> list[str]:
    """Return the curl commands of a page, as they stand there."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    return re.findall(r"^ +(curl .+)$", text, re.MULTILINE)


async def run(folder: Path, command: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run, ["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


async def test_the_commands_of_the_documentation_work_as_they_stand_there(tmp_path, connect):
    port = free_port()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "logo.png")
    with product(tmp_path, environment={"NANOBATCH_GATEWAY_HTTP": f"127.0.0.1:{port}"}) as running:
        client = await connect(running.target)
        commands = [command.replace("127.0.0.1:8080", f"127.0.0.1:{port}") for command in curls("docs/api.md")]
        assert len(commands) >= 5
        execution_id = ""
        for command in commands:
            said = await run(tmp_path, command.replace("ID", execution_id))
            if "execute" in command:
                execution_id = re.search(r'"execution_id":"([^"]+)"', said)[1]
                async for _ in client.watch(execution_id):
                    pass
            assert '"success":false' not in said, (command, said)
        results = [result async for result in client.list_results(execution_id)]
        assert [result.state for result in results] == [ResultState.COMPLETED] * len(results)
        async with httpx.AsyncClient(timeout=20) as web:
            listed = (await web.get(f"http://127.0.0.1:{port}/api/executions/{execution_id}/results")).json()["data"]
            for result, view in zip(results, listed, strict=True):
                assert view["result_url"] == result.image_url
                picture = await web.get(result.image_url)
                assert hashlib.sha256(picture.content).hexdigest() == result.sha256
                assert Image.open(BytesIO((await web.get(result.thumbnail_url)).content)).format == "WEBP"
        await client.__aexit__(None, None, None)


async def test_one_picture_is_sent_and_asked_for_until_it_is_there(tmp_path, gemini, connect):
    port = free_port()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "logo.png")
    sent = (tmp_path / "logo.png").read_bytes()
    with product(
        tmp_path, upstream_url=gemini.url, environment={"NANOBATCH_GATEWAY_HTTP": f"127.0.0.1:{port}"}
    ) as running:
        client = await connect(running.target)
        key = {"Idempotency-Key": new_id()}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as web:
            form = [
                ("api_key", (None, CANARY)),
                ("prompt", (None, "in the snow")),
                ("image", ("logo.png", sent, "image/png")),
            ]
            tasks = [(await web.post("/api/generate-image", files=form, headers=key)).json()["data"] for _ in range(2)]
            first, again = tasks
            assert list(first) == ["imageId", "taskId", "status", "estimated_cost"]
            assert (first["imageId"], first["taskId"]) == (again["imageId"], again["taskId"])
            assert first["estimated_cost"] == {"totalCost": 0.04, "costPerImage": 0.039, "imageCount": 1}
            ids = {name: first[name] for name in ("imageId", "taskId")}
            states = []

            async def completed() -> bool:
                states.append((await web.post("/api/check-generation-status", json=ids)).json()["data"])
                return states[-1]["status"] == "completed"

            await eventually(completed, within=60)
            assert {state["status"] for state in states} <= {"pending", "processing", "completed"}
            done = states[-1]
            assert (done["api_cost"], done["error"]) == (0.039, None)
            picture = await web.get(done["result_url"])
        (result,) = [result async for result in client.list_results(first["taskId"])]
        assert hashlib.sha256(picture.content).hexdigest() == result.sha256
        assert result.source_image_id == first["imageId"]
        await client.__aexit__(None, None, None)
    (call,) = gemini.calls
    assert (call.prompt, call.images) == ("in the snow", 1)


async def test_a_key_that_comes_over_http_is_used_and_nowhere_to_be_found(tmp_path, gemini, connect):
    port = free_port()
    environment = {"NANOBATCH_GATEWAY_HTTP": f"127.0.0.1:{port}", "NANOBATCH_LOG_LEVEL": "debug"}
    form = {"api_key": CANARY, "prompts_text": "prompt1\\n\\nprompt2"}
    with product(tmp_path, upstream_url=gemini.url, environment=environment) as running:
        await (await connect(running.target)).__aexit__(None, None, None)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as web:
            started = await web.post(
                "/api/nano-banana/execute", files={name: (None, text) for name, text in form.items()}
            )
            data = started.json()["data"]
            assert data["status"] == "pending"
            assert (data["total_prompts"], data["estimated_cost"]) == (
                2,
                {"totalCost": 0.08, "costPerImage": 0.039, "imageCount": 2},
            )
            wrong = await web.post(
                "/api/nano-banana/execute",
                files={"api_key": (None, CANARY), "seed": (None, CANARY), CANARY: (None, "x")},
            )
            assert wrong.status_code == 400

            async def ended() -> bool:
                return (await web.get(f"/api/executions/{data['execution_id']}")).json()["data"][
                    "status"
                ] == "completed"

            await eventually(ended, within=60)
            shown = await web.get(f"/api/executions/{data['execution_id']}/results")
            assert {each["api_cost"] for each in shown.json()["data"]} == {0.039}
            assert CANARY not in shown.text
            assert len(gemini.calls) == 2
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert CANARY.encode() not in path.read_bytes(), path


async def test_with_tokens_every_route_has_its_lock_and_what_is_foreign_is_nothing(tmp_path):
    port, operators = free_port(), "operator-" + os.urandom(16).hex()
    environment = {
        "NANOBATCH_GATEWAY_HTTP": f"127.0.0.1:{port}",
        "NANOBATCH_AUTH": "token",
        "NANOBATCH_ADMIN_TOKEN": operators,
        "NANOBATCH_SANDBOX_DELAY": "30",
        "NANOBATCH_DRAIN_SECONDS": "1",  # nobody waits for that picture
    }
    base = f"http://127.0.0.1:{port}"
    with product(tmp_path, environment=environment) as running:
        async with (
            Client(running.target, token=operators) as admin,
            httpx.AsyncClient(base_url=base, timeout=60) as web,
        ):

            async def up() -> bool:
                try:
                    return (await web.get(f"/api/executions/{new_id()}", headers=bearer(operators))).status_code == 404
                except httpx.TransportError:
                    return False

            await eventually(up, within=60)
            users = [await admin.create_user(name) for name in ("anna", "ben")]
            anna, ben = [await admin.create_token("test", user_id=user.id) for user in users]
            form = {"model": (None, "sandbox"), "prompts_text": (None, "a red boat")}
            made = await web.post("/api/nano-banana/execute", files=form, headers=bearer(anna.secret))
            assert made.status_code == 200, made.text
            mine = made.json()["data"]["execution_id"]

            locked = [route for route, rule in ROUTES.items() if rule.access is Access.USER]
            assert len(locked) >= 4
            for route in locked:
                method, path = route.replace("{execution_id}", mine).split(" ")
                for headers in (
                    [],
                    [("Authorization", "Bearer rubbish")],
                    [("Authorization", f"Basic {anna.secret}")],
                    [("Authorization", f"Bearer {anna.secret[:-1]}")],
                    [("Authorization", f"Bearer {anna.secret}"), ("Authorization", f"Bearer {anna.secret}")],
                ):
                    refused = await web.request(method, path, headers=headers)
                    assert refused.status_code == 401, (route, headers)
                    assert refused.headers["www-authenticate"] == "Bearer"

            for path in ("", "/results", "/events"):
                answers = [
                    await web.get(f"/api/executions/{each}{path}", headers=bearer(ben.secret))
                    for each in (mine, new_id())
                ]
                assert {(answer.status_code, answer.content) for answer in answers} == {(404, answers[0].content)}

            async with web.stream("GET", f"/api/executions/{mine}/events", headers=bearer(anna.secret)) as events:
                assert events.status_code == 200
                await admin.revoke_token(anna.token.id)
                said = "".join([text async for text in events.aiter_text()])
            assert "UNAUTHENTICATED" in said or "TOKEN" in said


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
