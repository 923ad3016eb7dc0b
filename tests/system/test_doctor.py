"""``nanobatch doctor`` on real dependencies: all is well, then one thing at a time is not."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess

import pytest
from fakes.gemini import FakeGemini
from processes import NANOBATCH, bare_environment, cluster, free_port, product
from tls import make_certificate, trusted, under_tls

from nanobatch_runtime.diagnosis import Verdict, examine_service
from nanobatch_runtime.testing import eventually

KEY = "a-provider-key-for-tests"


async def doctor(folder, *words: str, **environment: str) -> tuple[int, dict[str, dict]]:
    """Return its exit code and its findings by check."""
    command = [NANOBATCH, "doctor", "--json", *words]
    env = bare_environment(folder) | environment
    ran = await asyncio.to_thread(
        subprocess.run, command, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert "Traceback" not in ran.stderr, ran.stderr
    assert ran.stdout, ran.stderr
    return ran.returncode, {one["check"]: one for one in json.loads(ran.stdout)["findings"]}


async def serving(target: str) -> bool:
    return (await examine_service("it", target, advice="wait")).verdict is Verdict.OK


def verdicts(findings) -> dict[str, str]:
    return {name: one["verdict"] for name, one in findings.items()}


@pytest.mark.timeout(240)
async def test_one_process_is_well_makes_a_picture_and_is_told_when_it_is_not_there(tmp_path, connect):
    with product(tmp_path) as up:
        client = await connect(up.target, within=90)
        await client.__aexit__(None, None, None)
        places = {"NANOBATCH_DATA_DIR": str(up.data), "NANOBATCH_GATEWAY_TARGET": up.target}
        code, found = await doctor(tmp_path, "--picture", **places)
        assert code == 0, found
        well = {"database", "schema", "clock", "queue", "tasks", "pictures", "gateway", "models", "key ring", "picture"}
        assert {name for name, verdict in verdicts(found).items() if verdict == "ok"} == well
        assert {name for name, verdict in verdicts(found).items() if verdict == "skipped"} == {
            "row security", "redis", "storage", "generator", "provider gemini",
        }  # fmt: skip
        assert "sandbox" in found["models"]["detail"]
        assert "Its successor gemini-3.1-flash-image costs" in found["models"]["detail"]
        certificate = make_certificate(tmp_path)
        async with under_tls(up.target, certificate) as target:
            behind = {**places, "NANOBATCH_GATEWAY_TARGET": target, **trusted(certificate)}
            code, found = await doctor(tmp_path, **behind)
            assert (code, found["gateway"]["verdict"], found["gateway"]["address"]) == (0, "ok", target), found
    code, found = await doctor(tmp_path, **places)
    assert code == 1
    assert [name for name, verdict in verdicts(found).items() if verdict == "failed"] == ["gateway"]
    assert "make run" in found["gateway"]["advice"]
    code, found = await doctor(tmp_path, **{**places, "NANOBATCH_DATA_DIR": str(tmp_path / "elsewhere")})
    assert (code, verdicts(found)["database"], verdicts(found)["pictures"]) == (1, "failed", "failed")
    assert not (tmp_path / "elsewhere").exists()  # it looks, and makes nothing
    code, found = await doctor(tmp_path, **{**places, "NANOBATCH_DATA_DIR": str(tmp_path / ("long" * 100))})
    assert (code, verdicts(found)["database"], verdicts(found)["pictures"]) == (1, "failed", "failed")
    with sqlite3.connect(up.data / "nanobatch.db") as connection:
        connection.execute("update secrets set record = 'no JSON'")
    connection.close()
    code, found = await doctor(tmp_path, **places)
    assert [name for name, verdict in verdicts(found).items() if verdict == "failed"] == ["gateway", "key ring"]
    assert "could not be read" in found["key ring"]["advice"]


@pytest.mark.timeout(300)
async def test_a_cluster_is_well_and_each_thing_that_is_not_is_named_with_what_to_do(
    tmp_path, postgres_server, redis_server, s3_server
):
    name = postgres_server.create()
    bucket = s3_server.bucket()
    places = {
        "NANOBATCH_DATABASE_URL": postgres_server.url(name).replace("nanobatch@", "nanobatch:p4ssword@"),
        "NANOBATCH_REDIS_URL": redis_server.url,
        **s3_server.environment(bucket),
    }
    try:
        async with FakeGemini() as gemini:
            with cluster(tmp_path, **places) as services:
                services.storage(), services.gateway()
                services.generator("one", gemini.url, at=services.generator_target)
                env = {
                    **places,
                    "ENCRYPTION_KEY": services._environment["ENCRYPTION_KEY"],
                    "NANOBATCH_STORAGE_TARGET": services.storage_target,
                    "NANOBATCH_GENERATOR_TARGET": services.generator_target,
                    "NANOBATCH_GATEWAY_TARGET": services.target,
                    "NANOBATCH_GEMINI_BASE_URL": gemini.url,
                    "GEMINI_API_KEY": KEY,
                }

                for target in (services.storage_target, services.generator_target, services.target):
                    await eventually(lambda target=target: serving(target), within=90)
                del gemini.models["gemini-2.5-flash-image"]
                code, found = await doctor(tmp_path, **env)
                assert (code, set(verdicts(found).values())) == (0, {"ok"}), found
                assert "p4ssword" not in json.dumps(found)
                assert s3_server.names(bucket) == []
                assert gemini.calls == []  # a key check is free
                retired = "not offered: gemini-2.5-flash-image (its successor is gemini-3.1-flash-image)"
                assert retired in found["provider gemini"]["detail"]

                for change, check, word in (
                    ({"NANOBATCH_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}, "redis", "NANOBATCH_REDIS_URL"),
                    ({"NANOBATCH_BLOB_URL": "s3://another/pictures"}, "pictures", "Make the bucket"),
                    ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "pictures", "AWS_ENDPOINT_URL"),
                    ({"ENCRYPTION_KEY": os.urandom(32).hex()}, "key ring", "Add the old key"),
                    ({"NANOBATCH_STORAGE_TARGET": "127.0.0.1:9"}, "storage", "NANOBATCH_STORAGE_TARGET"),
                    ({"NANOBATCH_GENERATOR_TARGET": "127.0.0.1:9"}, "generator", "NANOBATCH_GENERATOR_TARGET"),
                    ({"GEMINI_API_KEY": "bad-key"}, "provider gemini", "GEMINI_API_KEY"),
                ):
                    code, found = await doctor(tmp_path, **(env | change))
                    assert code == 1
                    assert [each for each, verdict in verdicts(found).items() if verdict == "failed"] == [check]
                    assert word in found[check]["advice"]

                with postgres_server.connect(name) as connection:
                    (newest,) = connection.execute("select version_num from alembic_version").fetchone()
                    connection.execute("update alembic_version set version_num = '0004'")
                    _, found = await doctor(tmp_path, **env)
                    assert "nanobatch migrate" in found["schema"]["advice"]
                    connection.execute("update alembic_version set version_num = %s", [newest])

        code, found = await doctor(
            tmp_path, **{**env, "NANOBATCH_DATABASE_URL": "postgresql+psycopg://u:s3cret@127.0.0.1:9/x"}
        )
        assert (code, verdicts(found)["database"], verdicts(found)["schema"]) == (1, "failed", "skipped")
        assert "NANOBATCH_DATABASE_URL" in found["database"]["advice"]
        assert "s3cret" not in json.dumps(found)
    finally:
        postgres_server.drop(name)
