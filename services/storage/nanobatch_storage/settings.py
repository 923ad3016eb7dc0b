"""What storage is told from outside; the only reader of the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from nanobatch_runtime.addresses import check_address
from nanobatch_runtime.redis import RedisSettings
from nanobatch_runtime.rpc.service_token import require_closed_door
from nanobatch_runtime.settings import ObservedSettings, TokenSetting


def _sqlite_in(validated: dict[str, Any]) -> str:
    return f"sqlite:///{(validated.get('data_dir') or Path('data')).resolve() / 'nanobatch.db'}"


def _pictures_in(validated: dict[str, Any]) -> str:
    return ((validated.get("data_dir") or Path("data")).resolve() / "pictures").as_uri()


class StorageSettings(RedisSettings, ObservedSettings):
    """Storage's settings; each field names its variable."""

    listen: str = Field(default="127.0.0.1:50053", validation_alias="NANOBATCH_STORAGE_GRPC")
    """Where storage listens: ``host:port`` or ``unix:/path``."""
    data_dir: Path = Field(default=Path("data"), validation_alias="NANOBATCH_DATA_DIR")
    """Folder of the database and the pictures where nothing else is said."""
    database_url: str = Field(default_factory=_sqlite_in, validation_alias="NANOBATCH_DATABASE_URL")
    """``postgresql+psycopg://...`` or ``sqlite:///file``; the default lies in the data folder."""
    blob_url: str = Field(default_factory=_pictures_in, validation_alias="NANOBATCH_BLOB_URL")
    """``file:///folder`` of the pictures, or ``s3://bucket/prefix``; the default lies in the data folder."""
    s3_endpoint: str = Field(default="", validation_alias="AWS_ENDPOINT_URL")
    """Address of the object store; empty: AWS's own of the region."""
    s3_region: str = Field(default="", validation_alias="AWS_REGION")
    """Region of the bucket; empty: us-east-1, which other stores than AWS's take as well."""
    s3_access_key_id: SecretStr = Field(default=SecretStr(""), validation_alias="AWS_ACCESS_KEY_ID")
    """Name of the key of the object store; empty: the role of the pod or the machine."""
    s3_secret_access_key: SecretStr = Field(default=SecretStr(""), validation_alias="AWS_SECRET_ACCESS_KEY")
    """The key itself."""
    lease_seconds: float = Field(default=30.0, ge=2, le=3600, validation_alias="NANOBATCH_LEASE_SECONDS")
    """How long a lease lasts without being renewed."""
    credential_window: int = Field(default=10, ge=1, le=1000, validation_alias="NANOBATCH_CREDENTIAL_WINDOW")
    """Calls in flight per key and model to begin with."""
    service_token: TokenSetting = Field(SecretStr(""), validation_alias="NANOBATCH_SERVICE_TOKEN")
    """What other services must show; empty: nothing, and then only this machine may reach the port."""
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", validation_alias="NANOBATCH_LOG_LEVEL")
    """How much is logged."""

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _is_supported(cls, value: str) -> str:
        try:
            url = make_url(value)
        except ArgumentError:
            url = None
        # The value is not repeated: it may hold a password.
        if url is None or url.get_backend_name() not in {"postgresql", "sqlite"}:
            message = "write postgresql+psycopg://user:password@host/database or sqlite:////folder/file."
            raise ValueError(message)
        if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
            message = "SQLite needs a file: a database in memory would be gone with the process."
            raise ValueError(message)
        return value

    @field_validator("blob_url")
    @classmethod
    def _is_a_store(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme != "file" and (url.scheme != "s3" or not url.netloc or "@" in url.netloc):
            # The value is not repeated: somebody may have written a key into it.
            message = "write file:///folder or s3://bucket/prefix."
            raise ValueError(message)
        return value

    @field_validator("s3_endpoint")
    @classmethod
    def _is_an_http_address(cls, value: str) -> str:
        if value and (urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname):
            message = "write https://host:port, or http:// where nobody listens in between."
            raise ValueError(message)
        return value

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        return check_address(value)

    @model_validator(mode="after")
    def _key_is_whole(self) -> Self:
        if bool(self.s3_access_key_id.get_secret_value()) != bool(self.s3_secret_access_key.get_secret_value()):
            message = "AWS_ACCESS_KEY_ID: give it with AWS_SECRET_ACCESS_KEY, or neither."
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _strangers_stay_out(self) -> Self:
        require_closed_door("NANOBATCH_STORAGE_GRPC", self.listen, self.service_token)
        return self

    @property
    def lease(self) -> timedelta:
        """Length of a lease."""
        return timedelta(seconds=self.lease_seconds)
