"""What the web front end is told by its environment."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from nanobatch_runtime.addresses import check_address, check_web_address, is_loopback
from nanobatch_runtime.settings import ObservedSettings

MOUNT = "/nano-banana"
"""Where the page lives, as in the seeds' addresses."""

OWN = f"{MOUNT}/nb"
"""Where our own routes are, out of the way of Gradio's."""

LOGIN, LOGOUT = f"{MOUNT}/login", f"{MOUNT}/logout"


class WebSettings(ObservedSettings):
    """The web front end's settings; the only reader of its environment."""

    listen: str = Field("127.0.0.1:7860", validation_alias="NANOBATCH_WEB")
    """Address of the page, ``host:port``; port 0: a free one."""
    gateway_target: str = Field("127.0.0.1:50051", validation_alias="NANOBATCH_GATEWAY_TARGET")
    """Where the gateway's gRPC port is reached."""
    public_url: str = Field("", validation_alias="NANOBATCH_PUBLIC_URL")
    """How browsers reach the gateway's HTTP port, where the pictures are; empty: any port of this machine."""
    page_url: str = Field("", validation_alias="NANOBATCH_WEB_URL")
    """How browsers reach the page where that is not its listen address, like ``https://pictures.example``."""
    auth: Literal["local", "token"] = Field("local", validation_alias="NANOBATCH_AUTH")
    """``token``: the page asks for a token first; ``local``: whoever reaches it is the local admin."""
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", validation_alias="NANOBATCH_LOG_LEVEL")
    """How much is logged."""

    @field_validator("log_level", "auth", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("listen")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if value.startswith("unix:"):
            message = "browsers need host:port, like 127.0.0.1:7860."
            raise ValueError(message)
        return check_address(value)

    @field_validator("public_url", "page_url")
    @classmethod
    def _a_web_address(cls, value: str) -> str:
        return check_web_address(value)

    @model_validator(mode="after")
    def _local_stays_local(self) -> Self:
        if self.auth == "local" and not is_loopback(self.listen):
            message = (
                f"NANOBATCH_WEB: {self.listen} can be reached by others, and NANOBATCH_AUTH=local lets everybody in; "
                "listen on 127.0.0.1."
            )
            raise ValueError(message)
        return self
