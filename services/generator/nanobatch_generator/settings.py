"""What a generator is told from outside; the only reader of the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from nanobatch_runtime.addresses import check_address
from nanobatch_runtime.keyring import Keyring
from nanobatch_runtime.redis import RedisSettings
from nanobatch_runtime.rpc.service_token import require_closed_door
from nanobatch_runtime.settings import ObservedSettings, TokenSetting


class GeneratorSettings(RedisSettings, ObservedSettings):
    """One generator's settings; each field names its variable."""

    listen: str = Field(default="127.0.0.1:50052", validation_alias="NANOBATCH_GENERATOR_GRPC")
    """Where GeneratorService listens: ``host:port`` or ``unix:/path``."""
    storage_target: str = Field(default="127.0.0.1:50053", validation_alias="NANOBATCH_STORAGE_TARGET")
    """Where storage is: ``dns:///host:port``, ``host:port`` or ``unix:/path``."""
    concurrency: int = Field(default=32, ge=1, le=1000, validation_alias="NANOBATCH_GENERATOR_CONCURRENCY")
    """Calls to providers at a time."""
    encryption_key: SecretStr = Field(validation_alias="ENCRYPTION_KEY")
    """The key ring that opens provider keys."""
    service_token: TokenSetting = Field(SecretStr(""), validation_alias="NANOBATCH_SERVICE_TOKEN")
    """What services show each other; empty: nothing, and then only this machine may reach the port."""
    gemini_base_url: str = Field(default="", validation_alias="NANOBATCH_GEMINI_BASE_URL")
    """Address of the Gemini API; empty: Google's own."""
    sandbox_delay: float = Field(default=0.5, ge=0, le=60, validation_alias="NANOBATCH_SANDBOX_DELAY")
    """Seconds that the sandbox takes for a picture unless the prompt says otherwise."""
    sandbox_may_crash: bool = Field(default=False, validation_alias="NANOBATCH_SANDBOX_CRASH")
    """Whether ``[crash]`` in a sandbox prompt may end the process that makes the call; for tests."""
    spare_processes: int = Field(default=4, ge=1, le=100, validation_alias="NANOBATCH_SPARE_PROCESSES")
    """Calls at a time that are made alone in a process of their own, because generators died during earlier ones."""
    spare_memory_mib: int = Field(default=1024, ge=256, le=1024 * 1024, validation_alias="NANOBATCH_SPARE_MEMORY_MIB")
    """Address space of such a process, in MiB."""
    data_dir: Path = Field(default=Path("data"), validation_alias="NANOBATCH_DATA_DIR")
    """Folder of the spool."""
    drain_seconds: float = Field(default=210.0, ge=0, le=3600, validation_alias="NANOBATCH_DRAIN_SECONDS")
    """How long running calls may go on after SIGTERM; the default outlasts the flash models' limit of 180 s."""
    log_level: str = Field(default="info", validation_alias="NANOBATCH_LOG_LEVEL")
    """debug, info, warning or error."""

    @field_validator("encryption_key")
    @classmethod
    def _is_a_ring(cls, value: SecretStr) -> SecretStr:
        Keyring.parse(value.get_secret_value())
        return value

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        return check_address(value)

    @model_validator(mode="after")
    def _strangers_stay_out(self) -> Self:
        require_closed_door("NANOBATCH_GENERATOR_GRPC", self.listen, self.service_token)
        return self

    @property
    def keyring(self) -> Keyring:
        """The master keys."""
        return Keyring.parse(self.encryption_key.get_secret_value())

    @property
    def drain(self) -> timedelta:
        """The grace of a stop."""
        return timedelta(seconds=self.drain_seconds)
