"""What the gateway is told by its environment."""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from nanobatch_runtime.keyring import Keyring
from nanobatch_runtime.redis import RedisSettings

_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:\[\]/]+):(?P<port>\d{1,5})")
_MAX_PORT = 65_535


class GatewaySettings(RedisSettings):
    """The gateway's settings; the only reader of its environment."""

    listen: str = Field("127.0.0.1:50051", validation_alias="NANOBATCH_GATEWAY_GRPC")
    """Address of the public gRPC port, ``host:port`` or ``unix:/path``."""
    generator_target: str = Field("127.0.0.1:50052", validation_alias="NANOBATCH_GENERATOR_TARGET")
    """Where generators are reached."""
    storage_target: str = Field("127.0.0.1:50053", validation_alias="NANOBATCH_STORAGE_TARGET")
    """Where storage is reached."""
    auth: Literal["local", "token"] = Field("local", validation_alias="NANOBATCH_AUTH")
    """``local``: whoever reaches the port is the one local admin, so it must be a loopback port."""
    encryption_key: SecretStr = Field(validation_alias="ENCRYPTION_KEY")
    """64 hex characters, or several of them separated by commas; the first encrypts."""
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", validation_alias="NANOBATCH_LOG_LEVEL")
    """How much is logged."""
    credential_window: int = Field(10, ge=1, le=1_000, validation_alias="NANOBATCH_CREDENTIAL_WINDOW")
    """Calls in flight per provider key to begin with; the estimate of a run's duration counts on it."""
    watch_seconds: float = Field(1800.0, ge=60, le=86_400, validation_alias="NANOBATCH_WATCH_SECONDS")
    """How long one watch may last before its client is asked to watch on, perhaps elsewhere."""

    @field_validator("log_level", "auth", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("auth")
    @classmethod
    def _built(cls, value: str) -> str:
        if value == "token":
            message = "token is not supported yet; use local."
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
        if value.startswith("unix:"):
            return value
        match = _HOST_AND_PORT.fullmatch(value)
        if match is None or int(match["port"]) > _MAX_PORT:
            message = "this is no address; write host:port, like 127.0.0.1:50051."
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _local_stays_local(self) -> Self:
        if self.auth == "local" and not _is_loopback(self.listen):
            message = (
                f"NANOBATCH_GATEWAY_GRPC: {self.listen} can be reached by others, and NANOBATCH_AUTH=local lets "
                "everybody in; listen on 127.0.0.1."
            )
            raise ValueError(message)
        return self

    @property
    def watch(self) -> timedelta:
        """The length of a watch."""
        return timedelta(seconds=self.watch_seconds)

    @property
    def keyring(self) -> Keyring:
        """The master keys."""
        return Keyring.parse(self.encryption_key.get_secret_value())


def _is_loopback(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name: nobody knows what it resolves to
        return False
