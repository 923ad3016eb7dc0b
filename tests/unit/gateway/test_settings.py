"""The environment is read once, and what is wrong in it is named."""

from __future__ import annotations

import pytest

from nanobatch_gateway.settings import GatewaySettings
from nanobatch_generator.settings import GeneratorSettings
from nanobatch_runtime.settings import SettingsError, load
from nanobatch_storage.settings import StorageSettings

KEY = "0123456789abcdef" * 4

LOOPBACK = [
    "127.0.0.1:0",
    "127.1.2.3:1",
    "localhost:50051",
    "LocalHost:50051",
    "[::1]:50051",
    "[0:0:0:0:0:0:0:1]:1",
    "[::ffff:127.0.0.1]:1",
    "unix:/tmp/s",
]
FOREIGN = [
    "0.0.0.0:50051",
    "[::]:50051",
    "[0:0:0:0:0:0:0:0]:1",
    "[::ffff:0.0.0.0]:1",
    "[::ffff:10.0.0.1]:1",
    "192.168.0.1:1",
    "169.254.169.254:1",
    "[fe80::1]:1",
    "example.com:1",
    "localhost.:1",
    "localhost.example.com:1",
    "127.0.0.1.example.com:1",
    "127.1:1",
    "0x7f000001:1",
    "2130706433:1",
    "0:1",
    "*:1",
]
NO_ADDRESS = [
    "nonsense",
    ":50051",
    "127.0.0.1:70000",
    "127.0.0.1",
    "dns:///127.0.0.1:1",
    "ipv4:0.0.0.0:1",
    "[::1%lo]:1",
]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in [
        field for kind in (GatewaySettings, GeneratorSettings, StorageSettings) for field in kind.model_fields.values()
    ]:
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    monkeypatch.setenv("ENCRYPTION_KEY", KEY)


def test_defaults_are_those_of_the_design() -> None:
    settings = load(GatewaySettings)
    assert settings.listen == "127.0.0.1:50051"
    assert settings.generator_target == "127.0.0.1:50052"
    assert settings.storage_target == "127.0.0.1:50053"
    assert settings.credential_window == 10
    assert KEY not in repr(settings)


@pytest.mark.parametrize("address", LOOPBACK)
def test_local_mode_listens_on_loopback(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NANOBATCH_GATEWAY_GRPC", address)
    assert load(GatewaySettings).listen == address


@pytest.mark.parametrize("address", FOREIGN)
def test_local_mode_is_refused_on_any_other_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NANOBATCH_GATEWAY_GRPC", address)
    with pytest.raises(SettingsError, match=r"(?s)NANOBATCH_GATEWAY_GRPC.*NANOBATCH_AUTH=local"):
        load(GatewaySettings)
    monkeypatch.setenv("NANOBATCH_AUTH", "token")
    assert load(GatewaySettings).listen == address


@pytest.mark.parametrize("address", NO_ADDRESS)
@pytest.mark.parametrize("auth", ["local", "token"])
def test_what_is_no_address_is_refused_in_every_mode(monkeypatch: pytest.MonkeyPatch, address: str, auth: str) -> None:
    monkeypatch.setenv("NANOBATCH_GATEWAY_GRPC", address)
    monkeypatch.setenv("NANOBATCH_AUTH", auth)
    with pytest.raises(SettingsError, match=r"NANOBATCH_GATEWAY_GRPC: this is no address"):
        load(GatewaySettings)


@pytest.mark.parametrize(
    ("kind", "variable"),
    [(StorageSettings, "NANOBATCH_STORAGE_GRPC"), (GeneratorSettings, "NANOBATCH_GENERATOR_GRPC")],
)
def test_an_internal_port_is_closed_to_strangers(monkeypatch: pytest.MonkeyPatch, kind, variable: str) -> None:
    for address in LOOPBACK:
        monkeypatch.setenv(variable, address)
        assert load(kind).listen == address
    for address in FOREIGN:
        monkeypatch.setenv(variable, address)
        monkeypatch.delenv("NANOBATCH_SERVICE_TOKEN", raising=False)
        with pytest.raises(SettingsError, match=rf"{variable}: .*NANOBATCH_SERVICE_TOKEN") as caught:
            load(kind)
        assert "\n" not in str(caught.value)
        monkeypatch.setenv("NANOBATCH_SERVICE_TOKEN", "s" * 32)
        settings = load(kind)
        assert settings.listen == address
        assert "ssss" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("NANOBATCH_GATEWAY_GRPC", "nonsense", "host:port"),
        ("NANOBATCH_GATEWAY_GRPC", ":50051", "host:port"),
        ("NANOBATCH_GATEWAY_GRPC", "127.0.0.1:70000", "host:port"),
        ("NANOBATCH_ADMIN_TOKEN", "short", "32 characters"),
        ("NANOBATCH_ADMIN_TOKEN", "x" * 31, "32 characters"),
        ("NANOBATCH_ADMIN_TOKEN", "two words " * 5, "spaces"),
        ("NANOBATCH_ADMIN_TOKEN", "nbt_" + "x" * 49, "mistyped"),
        ("NANOBATCH_SERVICE_TOKEN", "short", "32 characters"),
        ("NANOBATCH_SERVICE_TOKEN", "schlüssel" * 5, "ASCII"),
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


@pytest.mark.parametrize("address", [address for address in LOOPBACK if not address.startswith("unix:")])
def test_the_http_port_may_be_on_loopback(address: str) -> None:
    assert load(GatewaySettings, http=address).http == address


@pytest.mark.parametrize("address", FOREIGN)
def test_without_a_login_the_http_port_is_nowhere_else(address: str) -> None:
    with pytest.raises(SettingsError, match="NANOBATCH_GATEWAY_HTTP"):
        load(GatewaySettings, http=address)


@pytest.mark.parametrize("address", [*NO_ADDRESS, "unix:/tmp/http", "on"])
def test_what_is_no_http_address_is_named(address: str) -> None:
    with pytest.raises(SettingsError, match="NANOBATCH_GATEWAY_HTTP"):
        load(GatewaySettings, http=address)


def test_the_http_port_can_be_left_out() -> None:
    assert load(GatewaySettings, http=" OFF ").http == "off"


def test_a_port_on_every_address_must_know_its_name() -> None:
    everywhere = {"auth": "token", "http": "0.0.0.0:8080"}
    with pytest.raises(SettingsError, match="NANOBATCH_PUBLIC_URL"):
        load(GatewaySettings, **everywhere)
    assert load(GatewaySettings, **everywhere, public_url="https://a.example/").public_url == "https://a.example"


@pytest.mark.parametrize(
    "url", ["a.example", "ftp://a.example", "https://u:p@a.example", "https://a.example?x", "https://"]
)
def test_what_browsers_cannot_reach_is_no_public_address(url: str) -> None:
    with pytest.raises(SettingsError, match="NANOBATCH_PUBLIC_URL"):
        load(GatewaySettings, public_url=url)


@pytest.mark.parametrize("origins", ["*", "a.example", "https://a.example/", "https://a.example, *", "null"])
def test_origins_are_named_whole(origins: str) -> None:
    with pytest.raises(SettingsError, match="CORS_ORIGIN"):
        load(GatewaySettings, cors_origin=origins)
