"""Opening and finding providers; and the fake Gemini as a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import date, timedelta
from pathlib import Path

from fakes.gemini import FakeGemini

from nanobatch_catalog import list_models
from nanobatch_generator.domain import PictureRequest
from nanobatch_generator.providers.registry import open_providers

FAKE = Path(__file__).parents[2] / "fakes" / "gemini.py"


def request_for(model: str) -> PictureRequest:
    return PictureRequest(model=model, prompt="a cat", timeout=timedelta(seconds=10))


async def test_every_model_of_the_catalogue_has_its_provider(fake: FakeGemini) -> None:
    async with open_providers(gemini_base_url=fake.url, sandbox_delay=timedelta(0)) as providers:
        for model in list_models(date(2026, 11, 21)):
            done = await providers[model.provider].submit(request_for(model.id), "some-key")
            assert done.data
    assert len(fake.calls) == 5


async def test_the_fake_runs_as_a_process_and_leaves_its_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "calls.jsonl"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, FAKE, "--port", "0", "--picture-bytes", "40000", "--latency", "lognormal:0.01:0.5"),
        *("--seed", "1", "--ledger", ledger),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()
        async with open_providers(gemini_base_url=url) as providers:
            done = await providers["gemini"].submit(request_for("gemini-2.5-flash-image"), "some-key")
    finally:
        process.terminate()
        code = await asyncio.wait_for(process.wait(), 10)
    assert code == 0
    assert len(done.data) == 40_000
    (line,) = ledger.read_text().splitlines()
    call = json.loads(line)
    assert (call["status"], call["finished"], call["prompt"], call["key"]) == (200, True, "a cat", "some")
    assert call["usage"]["totalTokenCount"] == 1292
    assert call["latency"] > 0
