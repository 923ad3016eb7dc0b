"""Under TLS, as an Ingress ends it before the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from tls import make_certificate, trusted, under_tls

from nanobatch_client import Client
from nanobatch_client._transport import Transport
from nanobatch_client.models import Patience
from nanobatch_client.testing import ScriptedGateway

if TYPE_CHECKING:
    from conftest import Command


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path)


def trusting(certificate: Path) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(certificate.read_bytes())


async def test_the_command_speaks_tls_and_takes_no_certificate_that_it_does_not_know(
    gateway: ScriptedGateway, nanobatch: Command, certificate: Path
) -> None:
    async with under_tls(gateway.target, certificate) as target:
        token = {"NANOBATCH_TOKEN": "a-token"}
        ended = await nanobatch("models", "--target", target, **token, **trusted(certificate))
        assert ended.code == 0, ended.stderr
        assert "sandbox" in ended.stdout
        assert gateway.calls[-1][2]["authorization"] == "Bearer a-token"
        refused = await nanobatch("models", "--target", target, **token)
        assert refused.code != 0
        assert f"No nanobatch server answers at {target}." in refused.stderr
        assert "Traceback" not in refused.stderr
    assert gateway.count("ListModels") == 1


async def test_a_client_may_bring_its_own_authority(gateway: ScriptedGateway, certificate: Path) -> None:
    async with (
        under_tls(gateway.target, certificate) as target,
        Client(target, credentials=trusting(certificate)) as client,
    ):
        assert [model.id for model in await client.list_models()] == ["gemini-2.5-flash-image", "sandbox"]


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ("https://grpc.pictures.example", "grpc.pictures.example:443"),
        ("https://grpc.pictures.example/", "grpc.pictures.example:443"),
        ("https://grpc.pictures.example:8443", "grpc.pictures.example:8443"),
        ("https://[::1]", "[::1]:443"),
        ("https://[::1]:8443", "[::1]:8443"),
    ],
)
async def test_the_port_is_that_of_https_unless_another_is_said(
    monkeypatch: pytest.MonkeyPatch, target: str, where: str
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(grpc.aio, "secure_channel", lambda target, *_, **__: opened.append(target))
    Transport(target, token=None, credentials=None, patience=Patience())
    assert opened == [where]
