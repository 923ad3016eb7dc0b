from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pty
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nanobatch_client import Violation
from nanobatch_client.testing import ScriptedGateway, make_status

if TYPE_CHECKING:
    from conftest import Command
from nanobatch_runtime.testing import eventually

KEY = "secret-key-of-nobody"
UntilLine = Callable[[asyncio.StreamReader, str], Awaitable[str]]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_run_writes_pictures_and_manifest_and_keeps_data_and_notes_apart(
    gateway: ScriptedGateway, nanobatch: Command
) -> None:
    prompts = nanobatch.write("A fox in the snow!", "Ein Bär\nam See")
    ended = await nanobatch("run", prompts, "-o", "pictures", "--variations", "2")
    assert ended.code == 0, ended.stderr
    pictures = ["001-a-fox-in-the-snow-v2.png", "001-a-fox-in-the-snow.png"]
    pictures += ["002-ein-bar-am-see-v2.png", "002-ein-bar-am-see.png"]
    assert files(nanobatch.folder / "pictures") == [*pictures, "manifest.json"]
    assert sorted(ended.lines) == [f"pictures/{name}" for name in pictures]
    assert "model sandbox: 4 pictures, free" in ended.stderr
    assert "completed: 4 done" in ended.stderr
    assert "\x1b" not in ended.stderr
    manifest = json.loads((nanobatch.folder / "pictures/manifest.json").read_text())
    assert manifest["execution_id"] in gateway.runs
    assert [(r["index"], r["variation"]) for r in manifest["results"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for result in manifest["results"]:
        data = (nanobatch.folder / "pictures" / result["file"]).read_bytes()
        assert result["sha256"] == hashlib.sha256(data).hexdigest()
        assert (result["state"], result["cost_micros"], result["error"]) == ("COMPLETED", 39_000, None)


async def test_json_is_one_document(nanobatch: Command) -> None:
    prompts = nanobatch.write("one", "[fail] two")
    ended = await nanobatch("run", prompts, "-o", "out", "--json")
    assert ended.code == 3
    document = json.loads(ended.stdout)
    assert document["execution"]["state"] == "COMPLETED"
    assert document["stats"]["total_cost_micros"] == 39_000
    assert document["stats"]["total_cost_dollars"] == 0.039
    assert [result["file"] for result in document["results"]] == ["001-one.png", None]
    assert document["results"][1]["error"]["code"] == "CONTENT_BLOCKED"
    assert document["exit_code"] == 3
    assert "nanobatch retry" in ended.stderr


async def test_a_dry_run_names_the_price_and_creates_nothing(gateway: ScriptedGateway, nanobatch: Command) -> None:
    prompts = nanobatch.write("one", "two")
    (nanobatch.folder / "a.png").write_bytes(b"x")
    ended = await nanobatch("run", prompts, "--dry-run", "--reference", "a.png", GEMINI_API_KEY=KEY)
    assert ended.code == 0
    assert ended.lines == ["gemini-2.5-flash-image: 2 pictures x $0.039 = $0.078 by the price list"]
    assert "with the key from GEMINI_API_KEY" in ended.stderr
    document = json.loads((await nanobatch("run", prompts, "--dry-run", "--json", GEMINI_API_KEY=KEY)).stdout)
    assert document["estimate"]["total_micros"] == 78_000
    assert document["estimate"]["total_dollars"] == 0.078
    assert {name for name, _, _ in gateway.calls} == {"EstimateCost", "ListModels"}
    assert KEY not in str(gateway.calls)


async def test_a_dry_run_counts_reference_pictures(nanobatch: Command) -> None:
    prompts = nanobatch.write("one")
    (nanobatch.folder / "a.png").write_bytes(b"x")
    ended = await nanobatch("run", prompts, "--dry-run", *["--reference", "a.png"] * 4, GEMINI_API_KEY=KEY)
    assert ended.code == 2
    assert "at most 3 reference pictures, not 4" in ended.stderr


async def test_detach_gives_the_id_and_download_brings_the_pictures(
    gateway: ScriptedGateway, nanobatch: Command
) -> None:
    started = await nanobatch("run", "-", "--detach", stdin="one\n\ntwo\n")
    assert started.code == 0
    [execution_id] = started.lines
    assert execution_id in gateway.runs
    await eventually(lambda: gateway.runs[execution_id].ended)
    ended = await nanobatch("download", execution_id, "-o", "out")
    assert (ended.code, sorted(ended.lines)) == (0, ["out/001-one.png", "out/002-two.png"])
    fetched = gateway.count("DownloadImage")
    again = await nanobatch("download", execution_id, "-o", "out")
    assert (again.code, sorted(again.lines)) == (0, ["out/001-one.png", "out/002-two.png"])
    assert gateway.count("DownloadImage") == fetched
    document = json.loads((await nanobatch("run", "-", "--detach", "--json", stdin="one")).stdout)
    assert document["execution"]["id"] in gateway.runs


async def test_pictures_of_another_run_are_never_overwritten(nanobatch: Command) -> None:
    prompts = nanobatch.write("one")
    await nanobatch("run", prompts, "-o", "out")
    before = (nanobatch.folder / "out/001-one.png").read_bytes()
    ended = await nanobatch("run", prompts, "-o", "out")
    assert ended.lines == ["out/001-one-2.png"]
    assert "001-one.png is another picture already; this one is 001-one-2.png" in ended.stderr
    assert (nanobatch.folder / "out/001-one.png").read_bytes() == before
    aside = [name for name in files(nanobatch.folder / "out") if name.startswith("manifest-")]
    assert len(aside) == 1
    manifest = json.loads((nanobatch.folder / "out/manifest.json").read_text())
    assert manifest["results"][0]["file"] == "001-one-2.png"


async def test_watch_json_is_a_line_per_event(nanobatch: Command) -> None:
    [execution_id] = (await nanobatch("run", "-", "--detach", stdin="one\n\n[fail] two")).lines
    ended = await nanobatch("watch", execution_id, "--json", "--quiet")
    assert ended.code == 3
    events = [json.loads(line) for line in ended.lines]
    revisions = [event["revision"] for event in events]
    assert revisions == sorted(set(revisions))
    assert events[-1]["type"] == "execution"
    assert events[-1]["execution"]["state"] == "COMPLETED"
    assert ended.stderr == ""


async def test_no_server_is_1_and_says_what_to_type(nanobatch: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = await nanobatch("run", "-", "-o", "out", "--target", target, stdin="one")
    assert ended.code == 1
    assert ended.stdout == ""
    assert f"No nanobatch server answers at {target}" in ended.stderr
    assert "make run" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_an_invalid_request_is_2_and_names_each_prompt(gateway: ScriptedGateway, nanobatch: Command) -> None:
    gateway.violations = [
        Violation("execution.prompts[1].text", "It has 10,001 characters, 10,000 are allowed.", "TOO_LONG"),
        Violation("model", "There is no such model.", "UNKNOWN_MODEL"),
    ]
    prompts = nanobatch.write("short", "a second prompt " + "x" * 100)
    ended = await nanobatch("run", prompts, "-o", "out")
    assert ended.code == 2
    expected = '- prompt 2 "a second prompt xxxxxxxxxxxxxxxxxxxxxxxx…": It has 10,001 characters, 10,000 are allowed.'
    assert expected in ended.stderr
    assert "- model: There is no such model." in ended.stderr
    assert not (nanobatch.folder / "out").exists()
    document = json.loads((await nanobatch("run", prompts, "-o", "out", "--json")).stdout)
    assert document["error"]["violations"][1]["field"] == "model"


@pytest.mark.parametrize(
    "args",
    [
        ["run"],
        ["run", "prompts.txt"],
        ["run", "missing.txt", "-o", "out"],
        ["run", "prompts.txt", "-o", "out", "--reference", "missing.png"],
        ["run", "prompts.txt", "-o", "out", "--max-cost", "much"],
        ["run", "prompts.txt", "-o", "out", "--max-cost", "10000000000000"],
        ["run", "prompts.txt", "-o", "out", "--label", "novalue"],
        ["run", "prompts.txt", "-o", "out", "--api-key-env", "NOT_SET"],
        ["run", "prompts.txt", "-o", "out", "--variations", "many"],
        ["nonsense"],
    ],
    ids=" ".join,
)
async def test_wrong_usage_is_2_and_calls_nobody(gateway: ScriptedGateway, nanobatch: Command, args: list[str]) -> None:
    nanobatch.write("one")
    ended = await nanobatch(*args)
    assert ended.code == 2, ended.stderr
    assert gateway.calls == []
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("word", "code", "advice"),
    [
        ("[invalid-key]", 4, "nanobatch resume {id} --api-key-env GEMINI_API_KEY"),
        ("[cap]", 5, "nanobatch resume {id} --max-cost DOLLARS"),
        ("[quota]", 5, "nanobatch watch {id}"),
        ("[gone]", 5, "nanobatch models"),
    ],
)
async def test_a_run_that_stands_still_ends_with_its_code_and_advice(
    gateway: ScriptedGateway, nanobatch: Command, word: str, code: int, advice: str
) -> None:
    prompts = nanobatch.write("one", f"{word} two")
    ended = await nanobatch("run", prompts, "-o", "out", "--quiet", GEMINI_API_KEY=KEY)
    [execution_id] = gateway.runs
    assert ended.code == code
    assert advice.format(id=execution_id) in ended.stderr
    assert ended.lines == ["out/001-one.png"]
    assert KEY not in ended.stdout + ended.stderr
    manifest = json.loads((nanobatch.folder / "out/manifest.json").read_text())
    assert [result["state"] for result in manifest["results"]] == ["COMPLETED", "PENDING"]


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED"])
async def test_a_refused_token_is_4(gateway: ScriptedGateway, nanobatch: Command, code: str) -> None:
    gateway.failures["ListModels"].append(make_status(code, "Who are you?", reason="TOKEN_UNKNOWN"))
    ended = await nanobatch("models", NANOBATCH_TOKEN="t")
    assert ended.code == 4
    assert gateway.calls[0][2]["authorization"] == "Bearer t"


async def test_a_refused_key_is_4(gateway: ScriptedGateway, nanobatch: Command) -> None:
    ended = await nanobatch("check-key", "--api-key-env", "MY_KEY", MY_KEY="bad")
    assert ended.code == 4
    assert (await nanobatch("check-key", "--api-key-env", "MY_KEY", MY_KEY=KEY)).code == 0
    gateway.failures["ResumeExecution"].append(make_status("FAILED_PRECONDITION", "Wiped.", reason="KEY_NEEDED"))
    ended = await nanobatch("resume", "x")
    assert ended.code == 4
    assert "--api-key-env GEMINI_API_KEY" in ended.stderr


async def test_ctrl_c_detaches_and_says_how_to_come_back(
    gateway: ScriptedGateway, nanobatch: Command, until_line: UntilLine
) -> None:
    prompts = nanobatch.write("one", "[hold] two")
    process = await nanobatch.start("run", prompts, "-o", "my pictures")
    await until_line(process.stdout, "001-one.png")
    ended = await nanobatch.interrupt(process)
    [execution_id] = gateway.runs
    assert ended.code == 130
    assert f"nanobatch watch {execution_id}" in ended.stderr
    assert f"nanobatch download {execution_id} -o 'my pictures'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert gateway.count("CancelExecution") == 0
    assert files(nanobatch.folder / "my pictures") == ["001-one.png", "manifest.json"]
    gateway.release()
    await eventually(lambda: gateway.runs[execution_id].ended)
    ended = await nanobatch("download", execution_id, "-o", "my pictures")
    assert sorted(ended.lines) == ["my pictures/001-one.png", "my pictures/002-hold-two.png"]


async def test_ctrl_c_twice_ends_at_once_too(
    gateway: ScriptedGateway, nanobatch: Command, until_line: UntilLine
) -> None:
    process = await nanobatch.start("run", nanobatch.write("one", "[hold] two"), "-o", "out")
    await until_line(process.stdout, "001-one.png")
    process.send_signal(2)
    ended = await nanobatch.interrupt(process)
    assert ended.code in {130, -2}
    assert len(gateway.runs) == 1


async def test_a_pause_by_a_user_is_waited_out(
    gateway: ScriptedGateway, nanobatch: Command, until_line: UntilLine
) -> None:
    process = await nanobatch.start("run", nanobatch.write("one", "[hold] two"), "-o", "out")
    await until_line(process.stdout, "001-one.png")
    [execution_id] = gateway.runs
    assert (await nanobatch("pause", execution_id)).code == 0
    await until_line(process.stderr, "paused by a user")
    gateway.release()
    assert (await nanobatch.end(process)).code == 0


async def test_a_run_goes_on_over_a_restart_of_the_server(
    gateway: ScriptedGateway, nanobatch: Command, until_line: UntilLine
) -> None:
    process = await nanobatch.start("run", nanobatch.write("one", "[hold] two"), "-o", "out")
    await until_line(process.stdout, "001-one.png")
    await gateway.stop()
    gateway.release()
    await eventually(lambda: all(run.ended for run in gateway.runs.values()))
    await gateway.start()
    ended = await nanobatch.end(process)
    assert ended.code == 0, ended.stderr
    assert files(nanobatch.folder / "out") == ["001-one.png", "002-hold-two.png", "manifest.json"]


async def test_a_damaged_picture_is_an_error_and_not_kept(gateway: ScriptedGateway, nanobatch: Command) -> None:
    [execution_id] = (await nanobatch("run", "-", "--detach", stdin="one\n\ntwo")).lines
    await eventually(lambda: gateway.runs[execution_id].ended)
    gateway.damage.add(gateway.runs[execution_id].results[0].image_id)
    ended = await nanobatch("download", execution_id, "-o", "out")
    assert ended.code == 1
    assert "001-one.png could not be saved" in ended.stderr
    assert f"nanobatch download {execution_id} -o out" in ended.stderr
    assert files(nanobatch.folder / "out") == ["002-two.png", "manifest.json"]


async def test_a_picture_that_came_after_its_cancellation_is_fetched(
    gateway: ScriptedGateway, nanobatch: Command
) -> None:
    [execution_id] = (await nanobatch("run", "-", "--detach", stdin="[hold] one\n\ntwo")).lines
    await nanobatch("cancel", execution_id)
    run = gateway.runs[execution_id]
    late, image = run.results[1], gateway.store(b"late")
    late.image_id, late.mime_type, late.sha256 = image.id, image.mime_type, image.sha256
    run.touch(late)
    ended = await nanobatch("download", execution_id, "-o", "out")
    assert (ended.code, ended.lines) == (3, ["out/002-two.png"])


async def test_options_reach_the_server(gateway: ScriptedGateway, nanobatch: Command) -> None:
    prompts = nanobatch.write("one")
    (nanobatch.folder / "a.png").write_bytes(b"reference")
    options = ["--reference", "a.png", "--aspect-ratio", "16:9", "--image-size", "2K", "--variations", "2"]
    options += ["--max-cost", "2.5", "--max-attempts", "4", "--timeout", "90", "--seed", "7", "--prefix", "a photo of"]
    options += ["--suffix", "at dawn", "--label", "team=a", "--label", "x=y=z", "--model", "gemini-2.5-flash-image"]
    ended = await nanobatch("run", prompts, "-o", "out", "-q", "--api-key-env", "MY_KEY", *options, MY_KEY=KEY)
    assert (ended.code, ended.stderr) == (0, "")
    [request] = [request for name, request, _ in gateway.calls if name == "CreateExecution"]
    assert (request.model, request.api_key) == ("gemini-2.5-flash-image", KEY)
    assert (request.output.aspect_ratio, request.output.image_size) == ("16:9", "2K")
    assert (request.variations, request.max_cost_micros, request.max_attempts) == (2, 2_500_000, 4)
    assert (request.seed, request.timeout.ToTimedelta()) == (7, timedelta(seconds=90))
    assert (request.prompt_prefix, request.prompt_suffix) == ("a photo of", "at dawn")
    assert dict(request.labels) == {"team": "a", "x": "y=z"}
    assert [gateway.pictures[image_id] for image_id in request.reference_image_ids] == [b"reference"]


async def test_the_other_commands_do_what_they_say(gateway: ScriptedGateway, nanobatch: Command) -> None:
    [execution_id] = (await nanobatch("run", "-", "--detach", stdin="one\n\n[fail] two")).lines
    await eventually(lambda: gateway.runs[execution_id].ended)
    rows = [line.split("\t") for line in (await nanobatch("results", execution_id)).lines]
    assert [row[:3] for row in rows] == [["1", "1", "COMPLETED"], ["2", "1", "FAILED"]]
    assert (await nanobatch("list")).lines[0].split("\t")[:3] == [execution_id, "COMPLETED", "1/2"]
    assert json.loads((await nanobatch("list", "--json")).stdout)["executions"][0]["id"] == execution_id
    assert (await nanobatch("models")).lines[1].startswith("sandbox\t")
    assert "1 result to be tried again" in (await nanobatch("retry", execution_id)).stderr
    await eventually(lambda: gateway.runs[execution_id].ended)
    assert (await nanobatch("watch", execution_id)).code == 0
    assert (await nanobatch("cancel", execution_id)).code == 0
    assert (await nanobatch("delete", execution_id)).code == 0
    assert (await nanobatch("results", execution_id)).code == 1
    assert (await nanobatch("--version")).lines[0].startswith("nanobatch ")


async def test_on_a_terminal_the_run_is_drawn_on_stderr_and_stdout_stays_data(nanobatch: Command) -> None:
    ours, theirs = pty.openpty()
    seen = bytearray()
    loop, drained = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        try:
            seen.extend(os.read(ours, 65536))
        except OSError:  # the other end is closed
            loop.remove_reader(ours)
            drained.set()

    prompts = nanobatch.write("one", "[fail] two")
    environ = {**nanobatch.environ, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "120"}
    process = await nanobatch.start("run", prompts, "-o", "out", stderr=theirs, env=environ)
    os.close(theirs)
    loop.add_reader(ours, read)
    stdout, _ = await asyncio.wait_for(process.communicate(), 60)
    await asyncio.wait_for(drained.wait(), 10)
    os.close(ours)
    assert process.returncode == 3
    assert stdout.decode() == "out/001-one.png\n"
    assert b"1 done, 1 failed" in seen
    assert b"\x1b[?25l" in seen  # the cursor is hidden while it redraws
    assert b"\x1b[?25h" in seen  # and shown again
    assert b"\x1b[3" not in seen  # NO_COLOR


async def test_export_writes_one_file_and_never_over_another(gateway: ScriptedGateway, nanobatch: Command) -> None:
    gateway.archive = b"PK archive"
    [execution_id] = (await nanobatch("run", "-", "--detach", stdin="one")).lines
    ended = await nanobatch("export", execution_id, "-o", "all.zip")
    assert (ended.code, ended.lines) == (0, ["all.zip"])
    assert (nanobatch.folder / "all.zip").read_bytes() == b"PK archive"
    ended = await nanobatch("export", execution_id, "-o", "all.zip")
    assert ended.code == 1
    assert "all.zip is there already" in ended.stderr
    assert (await nanobatch("export", execution_id, "-o", "all.zip", "--overwrite")).code == 0
