"""What admins do: users and tokens from the command line, and other people's runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from dataclasses import dataclass

import pytest
from fakes.gemini import FakeGemini

from nanobatch_client.models import ExecutionState, PauseReason
from nanobatch_runtime.testing import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "gemini-2.5-flash-image"


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def nanobatch(house):
    """Run a command with a token, the admin's unless another is given."""

    async def run(*words: str, token: str | None = house.admin_token) -> Ended:
        environment = {"PATH": os.environ["PATH"], "HOME": str(house.folder), "NANOBATCH_GATEWAY_TARGET": house.gateway}
        if token is not None:
            environment["NANOBATCH_TOKEN"] = token
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "nanobatch_client", *words),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return Ended(process.returncode or 0, out.decode(), err.decode())

    return run


async def test_a_user_gets_a_token_and_loses_it_from_the_command_line(nanobatch):
    made = await nanobatch("admin", "user", "create", "Ada", "--daily-cap", "2.50")
    user_id = made.out.strip()
    assert re.fullmatch(r"[0-9a-f-]{36}", user_id)
    created = await nanobatch("admin", "token", "create", "laptop", "--user", user_id, "--days", "3")
    token = created.out.strip()
    assert re.fullmatch(r"nbt_[0-9A-Za-z]{49}", token)  # stdout is the token and nothing else
    assert token not in created.err
    who = await nanobatch("whoami", token=token)
    assert who.out == f"{user_id}\tclient\tAda\t$2.50 a day\n"
    listed = await nanobatch("admin", "token", "list", token=token)
    token_id, prefix, name, state, _ = listed.out.strip().split("\t")
    assert (prefix, name) == (token[:8], "laptop")
    assert state.startswith("valid until")
    for ended in (who, listed, await nanobatch("whoami", "--json", token=token)):
        assert token not in ended.out + ended.err
    assert (await nanobatch("admin", "user", "list", token=token)).code == 4
    revoked = await nanobatch("admin", "token", "revoke", token_id)
    assert (revoked.code, revoked.out) == (0, "")

    async def is_out() -> bool:
        return (await nanobatch("list", token=token)).code == 4

    await eventually(is_out)


async def test_a_missing_or_wrong_token_is_4_with_a_sentence(nanobatch):
    for token, sentence in ((None, "asks for a token"), ("x", "no token of this server"), ("nbt_" + "a" * 49, "cut")):
        ended = await nanobatch("list", token=token)
        assert ended.code == 4
        assert ended.out == ""
        assert sentence in ended.err
        assert "NANOBATCH_TOKEN" in ended.err
        assert token is None or len(token) == 1 or token not in ended.err


async def test_a_user_is_changed_and_disabled(nanobatch):
    user_id = (await nanobatch("admin", "user", "create", "Bo", "--admin", "--quiet")).out.strip()
    token = (await nanobatch("admin", "token", "create", "--user", user_id, "--quiet")).out.strip()
    assert "admin" in (await nanobatch("whoami", token=token)).out
    assert (await nanobatch("admin", "user", "update", user_id, "--disable", token=token)).code == 1  # oneself
    changed = await nanobatch("admin", "user", "update", user_id, "--client", "--name", "Bob", "--disable", "--json")
    user = json.loads(changed.out)["user"]
    assert (user["name"], user["role"], user["disabled"], user["daily_cap_micros"]) == ("Bob", "CLIENT", True, None)

    async def is_out() -> bool:
        return (await nanobatch("whoami", token=token)).code == 4

    await eventually(is_out)
    listed = await nanobatch("admin", "user", "list")
    assert f"{user_id}\tclient\tBob\t\tdisabled" in listed.out.splitlines()


async def test_an_admins_key_for_somebody_elses_run_opens_for_the_run(new_house):
    async with FakeGemini(picture_bytes=20_000) as gemini, new_house(None, gemini_base_url=gemini.url) as house:
        _, token = await house.user("Ada")
        admin, ada = await house.client(), await house.client(token)
        execution = await ada.create_execution(["a boat"], model=MODEL, api_key="bad-key")

        async def is_paused() -> bool:
            return (await ada.get_execution(execution.id)).pause_reason is PauseReason.INVALID_KEY

        await eventually(is_paused)
        await admin.resume_execution(execution.id, api_key="a-good-key-of-the-admin")
        assert (await house.ended(ada, execution.id)).state is ExecutionState.COMPLETED
        assert [call.key for call in gemini.calls] == ["a-good-key-of-the-admin"]
