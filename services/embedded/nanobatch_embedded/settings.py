"""What the embedded mode is told from outside. Each service reads the rest of its settings itself."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from nanobatch_runtime.addresses import check_address, is_loopback
from nanobatch_runtime.settings import Settings


class EmbeddedSettings(Settings):
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
