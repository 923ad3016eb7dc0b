"""An end of TLS before a gateway, as an Ingress is one, with a certificate of its own."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from relay import relayed


def make_certificate(folder: Path) -> Path:
    """Make a certificate of ``localhost`` that nobody knows, with its key beside it (``.key``)."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "localhost.pem"
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


def trusted(certificate: Path) -> dict[str, str]:
    """Return the variable that lets gRPC trust it, in a process of its own."""
    return {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certificate)}
