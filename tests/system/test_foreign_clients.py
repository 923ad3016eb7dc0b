"""Clients that have no stub of ours: buf curl by reflection, and the standard health check."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import bare_environment, product

BUF = Path(sys.executable).parent / "buf"
SERVICES = {
    "nanobatch.gateway.v1.ExecutionService",
    "nanobatch.gateway.v1.AccountService",
    "nanobatch.gateway.v1.AnalyticsService",
    "nanobatch.gateway.v1.ImageService",
    "nanobatch.gateway.v1.ModelService",
}
STANDARD = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("foreign")
    with product(folder, environment={"NANOBATCH_SANDBOX_DELAY": "0.2"}) as running:
        with grpc.insecure_channel(running.target) as channel:
            _until_serving(channel)
        yield running.target
    assert "Traceback" not in (folder / "up.log").read_text()


def curl(target: str, method: str, tmp_path: Path, *words: str, data: object = None) -> subprocess.CompletedProcess:
    """Call a method by reflection: nothing of the contract is on this side."""
    command = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *words]
    if data is not None:
        command += ["-d", json.dumps(data)]
    return subprocess.run(
        [*command, f"http://{target}/{method}".removesuffix("/")],
        env=bare_environment(tmp_path) | {"BUF_CACHE_DIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def documents(text: str) -> list[dict]:
    """Return the JSON documents that stand one after another in a text."""
    found, decoder, text = [], json.JSONDecoder(), text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:].strip()
    return found


def test_reflection_lists_the_public_services_and_no_internal_door(target, tmp_path):
    done = curl(target, "", tmp_path, "--list-services")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == SERVICES | STANDARD
    methods = curl(target, "", tmp_path, "--list-methods")
    assert "nanobatch.gateway.v1.ExecutionService/WatchExecution" in methods.stdout
    for internal in ("storage.v1.LeaseService/LeaseResults", "generator.v1.GeneratorService/WatchProgress"):
        called = curl(target, f"nanobatch.{internal}", tmp_path, data={})
        assert called.returncode != 0


@pytest.mark.parametrize(
    "method",
    [
        "/nanobatch.storage.v1.LeaseService/LeaseResults",
        "/nanobatch.storage.v1.AccountService/EnsureSecret",
        "/nanobatch.generator.v1.GeneratorService/CheckApiKey",
    ],
)
def test_an_internal_method_is_not_served_at_the_public_door(target, method):
    with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method)(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_run_is_created_and_watched_to_its_end_by_reflection(target, tmp_path):
    executions = "nanobatch.gateway.v1.ExecutionService"
    asked = {"model": "sandbox", "promptsText": "a red boat\n\na blue boat", "labels": {"made": "by hand"}}
    done = curl(target, f"{executions}/CreateExecution", tmp_path, data=asked)
    assert done.returncode == 0, done.stderr
    execution_id = json.loads(done.stdout)["execution"]["id"]

    watched = curl(target, f"{executions}/WatchExecution", tmp_path, data={"executionId": execution_id})
    assert watched.returncode == 0, watched.stderr
    messages = documents(watched.stdout)
    finals = [m["result"] for m in messages if m.get("result", {}).get("state") == "RESULT_STATE_COMPLETED"]
    assert {result["promptText"] for result in finals} == {"a red boat", "a blue boat"}
    assert messages[-1]["stats"]["completionPercentage"] == 100
    assert [m["execution"]["state"] for m in messages if "execution" in m][-1] == "EXECUTION_STATE_COMPLETED"

    image = {"imageId": finals[0]["imageId"]}
    downloaded = documents(curl(target, "nanobatch.gateway.v1.ImageService/DownloadImage", tmp_path, data=image).stdout)
    assert downloaded[0]["image"]["sha256"] == finals[0]["sha256"]


def test_an_errors_details_are_readable_without_our_stubs(target, tmp_path):
    asked = {"model": "no-such-model", "prompts": [{"text": ""}]}
    done = curl(target, "nanobatch.gateway.v1.ExecutionService/CreateExecution", tmp_path, data=asked)
    assert done.returncode != 0
    error = json.loads(done.stderr)
    assert error["code"] == "invalid_argument"
    details = {detail["type"]: base64.b64decode(detail["value"] + "==") for detail in error["details"]}
    info = error_details_pb2.ErrorInfo.FromString(details["google.rpc.ErrorInfo"])
    assert (info.domain, info.reason) == ("nanobatch", "INVALID_REQUEST")
    bad = error_details_pb2.BadRequest.FromString(details["google.rpc.BadRequest"])
    assert {violation.field for violation in bad.field_violations} == {"model", "prompts[0].text"}


@pytest.mark.parametrize("service", ["", *sorted(SERVICES)])
def test_the_standard_health_check_knows_every_service(target, service):
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def test_the_health_of_an_unknown_service_is_not_found(target):
    request = health_pb2.HealthCheckRequest(service="nanobatch.storage.v1.LeaseService")
    with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def _until_serving(channel: grpc.Channel) -> None:
    """Follow the health of the whole until it serves."""
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=60)
    for answer in watch:
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            watch.cancel()
            return
