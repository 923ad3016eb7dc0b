"""What the gateway is told by its environment."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from nanobatch_gateway import tokens
from nanobatch_runtime.addresses import WEB_AUTHORITY, check_address, check_web_address, is_loopback
from nanobatch_runtime.keyring import Keyring
from nanobatch_runtime.redis import RedisSettings
from nanobatch_runtime.settings import ObservedSettings, TokenSetting

_ORIGIN = re.compile(rf"https?://{WEB_AUTHORITY}")
_EVERY_ADDRESS = ("0.0.0.0", "[::]", "[::0]")  # noqa: S104  # to recognise them


class GatewaySettings(RedisSettings, ObservedSettings):
    """The gateway's settings; the only reader of its environment."""

    listen: str = Field("127.0.0.1:50051", validation_alias="NANOBATCH_GATEWAY_GRPC")
    """Address of the public gRPC port, ``host:port`` or ``unix:/path``."""
    generator_target: str = Field("127.0.0.1:50052", validation_alias="NANOBATCH_GENERATOR_TARGET")
    """Where generators are reached."""
    storage_target: str = Field("127.0.0.1:50053", validation_alias="NANOBATCH_STORAGE_TARGET")
    """Where storage is reached."""
    http: str = Field("127.0.0.1:8080", validation_alias="NANOBATCH_GATEWAY_HTTP")
    """Address of the public HTTP port, ``host:port``; ``off``: there is none, and results have no addresses."""
    public_url: str = Field("", validation_alias="NANOBATCH_PUBLIC_URL")
    """How browsers reach the HTTP port, where that is not its own address (a proxy, a name)."""
    cors_origin: str = Field("", validation_alias="CORS_ORIGIN")
    """Origins of web pages that may call the HTTP port, separated by commas."""
    auth: Literal["local", "token"] = Field("local", validation_alias="NANOBATCH_AUTH")
    """``local``: whoever reaches the port is the one local admin, so it must be a loopback port; ``token``: who shows one."""
    admin_token: TokenSetting = Field(SecretStr(""), validation_alias="NANOBATCH_ADMIN_TOKEN")
    """With ``token``: what opens the first admin's account; empty: nothing does."""
    service_token: TokenSetting = Field(SecretStr(""), validation_alias="NANOBATCH_SERVICE_TOKEN")
    """What is shown to generators and storage."""
    encryption_key: SecretStr = Field(validation_alias="ENCRYPTION_KEY")
    """64 hex characters, or several of them separated by commas; the first encrypts."""
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", validation_alias="NANOBATCH_LOG_LEVEL")
    """How much is logged."""
    credential_window: int = Field(10, ge=1, le=1_000, validation_alias="NANOBATCH_CREDENTIAL_WINDOW")
    """Calls in flight per provider key to begin with; the estimate of a run's duration counts on it."""
    watch_seconds: float = Field(1800.0, ge=60, le=86_400, validation_alias="NANOBATCH_WATCH_SECONDS")
    """How long one watch may last before its client is asked to watch on, perhaps elsewhere."""

    limit_spend: int = Field(600, ge=0, le=1_000_000, validation_alias="NANOBATCH_LIMIT_SPEND")
    """Calls a minute and user that create, retry, resume, or check a key; 0: no limit."""
    limit_write: int = Field(6_000, ge=0, le=1_000_000, validation_alias="NANOBATCH_LIMIT_WRITE")
    """Other changes and uploads a minute and user."""
    limit_read: int = Field(30_000, ge=0, le=1_000_000, validation_alias="NANOBATCH_LIMIT_READ")
    """Reads a minute and user."""
    limit_watch: int = Field(12_000, ge=0, le=1_000_000, validation_alias="NANOBATCH_LIMIT_WATCH")
    """Watches opened a minute and user."""
    limit_streams: int = Field(2_000, ge=0, le=1_000_000, validation_alias="NANOBATCH_LIMIT_STREAMS")
    """Watches that a user may have open at one gateway at a time."""

    @field_validator("log_level", "auth", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("admin_token")
    @classmethod
    def _is_whole(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if tokens.has_our_beginning(text) and not tokens.is_token(text):
            message = "this looks like a token of nanobatch that was cut or mistyped."
            raise ValueError(message)
        return value

    @field_validator("encryption_key")
    @classmethod
    def _parses(cls, value: SecretStr) -> SecretStr:
        Keyring.parse(value.get_secret_value())
        return value

    @field_validator("listen")
    @classmethod
    def _an_address(cls, value: str) -> str:
        return check_address(value)

    @field_validator("http")
    @classmethod
    def _an_address_or_off(cls, value: str) -> str:
        return "off" if value.strip().lower() == "off" else _of_http(value)

    @field_validator("public_url")
    @classmethod
    def _a_web_address(cls, value: str) -> str:
        return check_web_address(value)

    @field_validator("cors_origin")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in _listed(value):
            if not _ORIGIN.fullmatch(origin):
                message = "write origins like https://pictures.example, separated by commas; * is not taken."
                raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _local_stays_local(self) -> Self:
        for variable, address in (("NANOBATCH_GATEWAY_GRPC", self.listen), ("NANOBATCH_GATEWAY_HTTP", self.http)):
            if self.auth == "local" and address != "off" and not is_loopback(address):
                message = (
                    f"{variable}: {address} can be reached by others, and NANOBATCH_AUTH=local lets everybody in; "
                    "listen on 127.0.0.1, or set NANOBATCH_AUTH=token."
                )
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _knows_its_name(self) -> Self:
        if not self.public_url and self.http.rpartition(":")[0] in _EVERY_ADDRESS:
            message = "NANOBATCH_PUBLIC_URL: say how browsers reach the HTTP port, because it listens on every address."
            raise ValueError(message)
        return self

    @property
    def watch(self) -> timedelta:
        """The length of a watch."""
        return timedelta(seconds=self.watch_seconds)

    @property
    def cors_origins(self) -> frozenset[str]:
        """The origins of ``CORS_ORIGIN``."""
        return frozenset(_listed(self.cors_origin))

    @property
    def keyring(self) -> Keyring:
        """The master keys."""
        return Keyring.parse(self.encryption_key.get_secret_value())


def _of_http(value: str) -> str:
    if value.startswith("unix:"):
        message = "the HTTP port is host:port, like 127.0.0.1:8080, or off."
        raise ValueError(message)
    return check_address(value)


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
