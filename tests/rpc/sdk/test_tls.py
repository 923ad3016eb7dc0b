"""Under TLS, as an Ingress ends it before the gateway."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from relay import relayed

from nanobatch_client import Client
from nanobatch_client._transport import Transport
from nanobatch_client.models import Patience
from nanobatch_client.testing import ScriptedGateway

if TYPE_CHECKING:
    from conftest import Command


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of ``localhost`` that nobody knows, with its key beside it (``.key``)."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "localhost.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@asynccontextmanager
async def under_tls(target: str, certificate: Path) -> AsyncIterator[str]:
    """Return where TLS ends before a gateway."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    context.set_alpn_protocols(["h2"])
    async with relayed(target, tls=context) as port:
        yield f"https://localhost:{port}"


def trusting(certificate: Path) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(certificate.read_bytes())


async def test_the_command_speaks_tls_and_takes_no_certificate_that_it_does_not_know(
    gateway: ScriptedGateway, nanobatch: Command, certificate: Path
) -> None:
    async with under_tls(gateway.target, certificate) as target:
        trusted = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certificate), "NANOBATCH_TOKEN": "a-token"}
        ended = await nanobatch("models", "--target", target, **trusted)
        assert ended.code == 0, ended.stderr
        assert "sandbox" in ended.stdout
        assert gateway.calls[-1][2]["authorization"] == "Bearer a-token"
        refused = await nanobatch("models", "--target", target, NANOBATCH_TOKEN="a-token")
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
