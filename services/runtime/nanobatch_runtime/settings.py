"""Settings come from the environment, once, typed; what is wrong is named with its variable."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic_settings
from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from nanobatch_runtime.addresses import check_address

SECRETS_DIR_VARIABLE = "NANOBATCH_SECRETS_DIR"
"""Names a folder in which a file stands for the variable of its name: a mounted Kubernetes Secret, say."""

_LEAST_CHARACTERS = 32


def _is_token(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text and len(text) < _LEAST_CHARACTERS:
        message = f"a token needs at least {_LEAST_CHARACTERS} characters; make one with: openssl rand -hex 32"
        raise ValueError(message)
    if not text.isascii() or any(character.isspace() or not character.isprintable() for character in text):
        message = "a token is made of ASCII letters, digits and signs, without spaces: it travels in a header."
        raise ValueError(message)
    return value


TokenSetting = Annotated[SecretStr, AfterValidator(_is_token)]
"""A secret that programs show as a bearer token; empty: none."""


class SettingsError(Exception):
    """The environment cannot work; the message names every variable that is wrong, one a line."""


class Settings(BaseSettings):
    """Base of every service's settings class. Fields name their variable as ``validation_alias``."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class ObservedSettings(Settings):
    """Settings of a process that shows how it is."""

    metrics: str = Field(default="", validation_alias="NANOBATCH_METRICS")
    """Listen address of metrics and health over HTTP, ``host:port``; empty: there is none."""

    otlp_endpoint: str = Field(default="", validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    """Where traces go, over gRPC: ``http://host:4317`` (plain) or ``https://...``; empty: nothing is traced."""

    @field_validator("otlp_endpoint")
    @classmethod
    def _can_be_traced(cls, value: str) -> str:
        value = value.strip()
        if value and not value.startswith(("http://", "https://")):
            message = "write http://host:4317, or https:// for TLS."
            raise ValueError(message)
        if value and find_spec("opentelemetry.exporter") is None:
            message = "traces need the extra packages of nanobatch-runtime[traces], and they are not installed."
            raise ValueError(message)
        return value

    @field_validator("metrics")
    @classmethod
    def _is_host_and_port(cls, value: str) -> str:
        value = value.strip()
        if value.lower() in {"", "off"}:
            return ""
        if value.startswith("unix:"):
            message = "who collects metrics needs host:port, like 127.0.0.1:9090, or off."
            raise ValueError(message)
        return check_address(value)


S = TypeVar("S", bound=Settings)


def load(kind: type[S], **overrides: Any) -> S:
    """Read ``kind`` from the environment; ``overrides`` (by field name) win. Raises :class:`SettingsError`.

    What the environment does not name is looked for in the folder of ``NANOBATCH_SECRETS_DIR``, where there is one:
    other processes of the same user can read an environment, and crash reports like to quote it.
    """
    folder = _secrets_folder()
    try:
        return kind(**{"_secrets_dir": folder, **overrides})
    except pydantic_settings.SettingsError as error:
        raise SettingsError(f"{SECRETS_DIR_VARIABLE}: a file in {folder} cannot be read: {error.__cause__}.") from None
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            message = problem["msg"].removeprefix("Value error, ")
            name = _variable(kind, str(problem["loc"][0])) if problem["loc"] else ""
            lines.append(message if not name or message.startswith(f"{name}:") else f"{name}: {message}")
        raise SettingsError("\n".join(lines)) from None


def _secrets_folder() -> Path | None:
    value = os.environ.get(SECRETS_DIR_VARIABLE, "")
    if not value:
        return None
    folder = Path(value)
    if not folder.is_dir():
        raise SettingsError(f"{SECRETS_DIR_VARIABLE}: there is no folder {value}.")
    return folder


def _variable(kind: type[Settings], name: str) -> str:
    """Return the variable of a field that was given by its name; a variable's name as it is."""
    field = kind.model_fields.get(name)
    return str(field.validation_alias) if field is not None and field.validation_alias else name
