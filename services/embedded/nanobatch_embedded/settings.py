"""What the embedded mode is told from outside. Each service reads the rest of its settings itself."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from nanobatch_runtime.addresses import check_address, is_loopback, reached_from_here
from nanobatch_runtime.redis import RedisSettings
from nanobatch_runtime.settings import ObservedSettings


class EmbeddedSettings(ObservedSettings):
    """Settings of ``nanobatch up``; each field names its variable."""

    data_dir: Path = Field(default=Path("data"), validation_alias="NANOBATCH_DATA_DIR")
    """Folder of database, pictures, spool and encryption key."""
    encryption_key: str = Field(default="", validation_alias="ENCRYPTION_KEY")
    """The key ring; empty: the one made at the first start."""
    gateway: str = Field(default="127.0.0.1:50051", validation_alias="NANOBATCH_GATEWAY_GRPC")
    """Public gRPC address, on loopback."""
    web: str = Field(default="127.0.0.1:7860", validation_alias="NANOBATCH_WEB")
    """Address of the web page, on loopback; ``off``: none."""
    log_level: str = Field(default="warning", validation_alias="NANOBATCH_LOG_LEVEL")
    """debug, info, warning or error."""

    @field_validator("web")
    @classmethod
    def _loopback(cls, value: str) -> str:
        if value == "off":
            return value
        if value.startswith("unix:") or not is_loopback(check_address(value)):
            message = f"{value} can be reached by others, and there is no login here; use 127.0.0.1:7860, or off."
            raise ValueError(message)
        return value


class DoctorSettings(RedisSettings):
    """What ``nanobatch doctor`` looks for by itself; the rest are the settings of whoever it examines."""

    data_dir: Path = Field(default=Path("data"), validation_alias="NANOBATCH_DATA_DIR")
    """Where the embedded mode's key lies."""
    database_url: SecretStr = Field(default=SecretStr(""), validation_alias="NANOBATCH_DATABASE_URL")
    """Whether one is named; storage's settings read it."""
    encryption_key: SecretStr = Field(default=SecretStr(""), validation_alias="ENCRYPTION_KEY")
    """The key ring; empty: the one in the data folder."""
    service_token: SecretStr = Field(default=SecretStr(""), validation_alias="NANOBATCH_SERVICE_TOKEN")
    """What storage is shown."""
    storage_target: str = Field(default="", validation_alias="NANOBATCH_STORAGE_TARGET")
    """Where storage is."""
    generator_target: str = Field(default="", validation_alias="NANOBATCH_GENERATOR_TARGET")
    """Where generators are."""
    gateway_target: str = Field(default="", validation_alias="NANOBATCH_GATEWAY_TARGET")
    """Where the gateway is."""
    storage_listen: str = Field(default="", validation_alias="NANOBATCH_STORAGE_GRPC")
    """Where storage listens, if it runs here."""
    generator_listen: str = Field(default="", validation_alias="NANOBATCH_GENERATOR_GRPC")
    """Where the generator listens that runs here."""
    gateway_listen: str = Field(default="", validation_alias="NANOBATCH_GATEWAY_GRPC")
    """Where the gateway listens, if it runs here."""
    token: SecretStr = Field(default=SecretStr(""), validation_alias="NANOBATCH_TOKEN")
    """What the gateway is shown."""
    gemini_base_url: str = Field(default="", validation_alias="NANOBATCH_GEMINI_BASE_URL")
    """Address of the Gemini API; empty: Google's own."""

    @property
    def storage(self) -> str:
        """Where storage is asked; empty: this environment names none."""
        return self.storage_target or reached_from_here(self.storage_listen)

    @property
    def generator(self) -> str:
        """Where a generator is asked; empty: this environment names none."""
        return self.generator_target or reached_from_here(self.generator_listen)

    @property
    def gateway(self) -> str:
        """Where the gateway is asked; empty: this is the environment of another service, which names none."""
        named = self.gateway_target or reached_from_here(self.gateway_listen)
        return named or ("" if self.storage or self.generator else "127.0.0.1:50051")

    @property
    def has_database(self) -> bool:
        """Whether database and pictures can be asked from here: they are storage's alone."""
        return bool(self.storage_listen or self.database_url.get_secret_value()) or not self.storage_target
