"""The HTTP port of the real product: curl as the documentation has it, pictures in a folder, keys nowhere."""

from __future__ import annotations

import asyncio
import hashlib
import re
import subprocess
from io import BytesIO
from pathlib import Path

import httpx
from PIL import Image
from processes import ROOT, free_port, product

from nanobatch_client.models import ResultState
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
