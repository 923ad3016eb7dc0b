"""Where Redis is: read the same way by every service."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from nanobatch_runtime.settings import Settings

# Kubernetes sets REDIS_PORT=tcp://10.0.0.1:6379 in every pod beside a service named "redis".
_PORT = re.compile(r"(?:tcp://.*:)?(?P<port>\d{1,5})")
_MAX_PORT = 65_535


class RedisSettings(Settings):
    """Settings of a service that may share a Redis with others. ``NANOBATCH_REDIS_URL`` wins over the parts."""

    redis_url: SecretStr = Field(default=SecretStr(""), validation_alias="NANOBATCH_REDIS_URL")
    """``redis://user:password@host:port/db``, ``rediss://`` (TLS) or ``unix:///path``; empty: the parts below."""
    redis_host: str = Field(default="", validation_alias="REDIS_HOST")
    """Host of Redis; empty (and no URL): there is none, and everything stays in the process."""
    redis_port: str = Field(default="6379", validation_alias="REDIS_PORT")
    """Port of Redis; of no interest without a host."""
    redis_db: str = Field(default="0", validation_alias="REDIS_DB")
    """Number of the database in Redis; of no interest without a host."""

    @field_validator("redis_url")
    @classmethod
    def _is_a_redis_url(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value().strip()
        if not url:
            return SecretStr("")
        from nanobatch_runtime.redis.library import parse_url  # noqa: PLC0415  # only where there is one

        try:
            parsed = parse_url(url)
        except ValueError:
            parsed = {}
        if not parsed.get("host") and not parsed.get("path"):
            # The value is not repeated: it may hold a password.
            message = "write redis://user:password@host:6379/0, rediss:// for TLS, or unix:///path."
            raise ValueError(message)
        return SecretStr(url)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.redis_url.get_secret_value() or not self.redis_host:
            return self
        port = _PORT.fullmatch(self.redis_port)
        if port is None or not 0 < int(port["port"]) <= _MAX_PORT:
            message = "REDIS_PORT: write a port, like 6379."
            raise ValueError(message)
        if not self.redis_db.isdecimal():
            message = "REDIS_DB: write the number of a database, like 0."
            raise ValueError(message)
        return self

    @property
    def redis(self) -> str:
        """The URL of Redis, which may hold a password; empty where there is none."""
        url = self.redis_url.get_secret_value()
        if url or not self.redis_host:
            return url
        port = _PORT.fullmatch(self.redis_port)
        host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
        return f"redis://{host}:{port['port'] if port else 6379}/{self.redis_db}"
