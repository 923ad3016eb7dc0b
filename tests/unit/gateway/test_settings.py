"""The environment is read once, and what is wrong in it is named."""

from __future__ import annotations

import pytest

from nanobatch_gateway.settings import GatewaySettings
from nanobatch_runtime.settings import SettingsError, load

KEY = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in GatewaySettings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    monkeypatch.setenv("ENCRYPTION_KEY", KEY)


def test_defaults_are_those_of_the_design() -> None:
    settings = load(GatewaySettings)
    assert settings.listen == "127.0.0.1:50051"
    assert settings.generator_target == "127.0.0.1:50052"
    assert settings.storage_target == "127.0.0.1:50053"
    assert settings.credential_window == 10
    assert KEY not in repr(settings)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.1.2.3:1", "localhost:50051", "[::1]:50051", "unix:/tmp/s"])
def test_local_mode_listens_on_loopback(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NANOBATCH_GATEWAY_GRPC", address)
    assert load(GatewaySettings).listen == address


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:50051", "192.168.0.1:1", "example.com:1"])
def test_local_mode_is_refused_on_any_other_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NANOBATCH_GATEWAY_GRPC", address)
    with pytest.raises(SettingsError, match=r"(?s)NANOBATCH_GATEWAY_GRPC.*NANOBATCH_AUTH=local"):
        load(GatewaySettings)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("NANOBATCH_GATEWAY_GRPC", "nonsense", "host:port"),
        ("NANOBATCH_GATEWAY_GRPC", ":50051", "host:port"),
        ("NANOBATCH_GATEWAY_GRPC", "127.0.0.1:70000", "host:port"),
        ("NANOBATCH_AUTH", "token", "not supported yet"),
        ("NANOBATCH_AUTH", "none", "local"),
        ("ENCRYPTION_KEY", "", "ENCRYPTION_KEY is empty"),
        ("ENCRYPTION_KEY", "abc", "64 hex"),
        ("NANOBATCH_CREDENTIAL_WINDOW", "0", "greater"),
        ("NANOBATCH_LOG_LEVEL", "loud", "debug"),
    ],
)
def test_what_is_wrong_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load(GatewaySettings)
    assert str(caught.value).startswith(f"{name}: ")
    assert words in str(caught.value)


def test_a_missing_encryption_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENCRYPTION_KEY")
    with pytest.raises(SettingsError, match="ENCRYPTION_KEY"):
        load(GatewaySettings)
