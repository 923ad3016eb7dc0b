"""Storage, a generator and the gateway, real and over TCP, with tokens on every door."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import grpc
import pytest
import pytest_asyncio
from contract import Metadata, bearer

import nanobatch_gateway.wiring
import nanobatch_generator.wiring
import nanobatch_storage.wiring
from nanobatch_client import Client, Execution
from nanobatch_client.models import Role, User
from nanobatch_gateway.settings import GatewaySettings
from nanobatch_generator.settings import GeneratorSettings
from nanobatch_runtime.rpc.channel import open_channel
from nanobatch_runtime.settings import load
from nanobatch_runtime.testing import eventually
from nanobatch_storage.settings import StorageSettings

ADMIN_TOKEN = secrets.token_hex(32)
SERVICE_TOKEN = secrets.token_hex(32)
ENCRYPTION_KEY = secrets.token_hex(32)

SOON = timedelta(milliseconds=100)


@dataclass
class House:
    """Running services, and who lives in them."""

    storage: str
    generator: str
    gateway: str
    channel: grpc.aio.Channel
    stack: AsyncExitStack
    folder: Path
    service_token: str = SERVICE_TOKEN
    admin_token: str = ADMIN_TOKEN
    admin: Metadata = field(default_factory=lambda: bearer(ADMIN_TOKEN))

    async def client(self, token: str = ADMIN_TOKEN) -> Client:
        """Return a connected SDK client; it is closed with the house."""
        return await self.stack.enter_async_context(Client(self.gateway, token=token))

    async def user(self, name: str = "somebody", role: Role = Role.CLIENT) -> tuple[User, str]:
        """Make a user with a token."""
        admin = await self.client()
        user = await admin.create_user(name, role=role)
        return user, (await admin.create_token(name, user_id=user.id)).secret

    async def ended(self, client: Client, execution_id: str) -> Execution:
        """Wait for the end of a run."""

        async def probe() -> Execution | None:
            execution = await client.get_execution(execution_id)
            return execution if execution.state.is_final else None

        return await eventually(probe, within=30)


@asynccontextmanager
async def open_house(
    database_url: str | None, *, gemini_base_url: str = "", **gateway_options: Any
) -> AsyncIterator[House]:
    """Open everything; without a database URL it is SQLite in a folder of its own."""
    async with AsyncExitStack() as stack:
        folder = Path(mkdtemp(prefix="nb-doors-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        common = {"data_dir": folder, "service_token": SERVICE_TOKEN, "listen": "127.0.0.1:0"}
        database = {"database_url": database_url} if database_url else {}
        storage = await stack.enter_async_context(
            nanobatch_storage.wiring.open_app(load(StorageSettings, **common, **database))
        )
        targets = {"storage_target": storage.address, "encryption_key": ENCRYPTION_KEY}
        generator = await stack.enter_async_context(
            nanobatch_generator.wiring.open_app(
                load(
                    GeneratorSettings,
                    **common,
                    **targets,
                    sandbox_delay=0.0,
                    drain_seconds=1,
                    gemini_base_url=gemini_base_url,
                )
            )
        )
        generator_at = f"127.0.0.1:{generator.port}"
        gateway = await stack.enter_async_context(
            nanobatch_gateway.wiring.open_app(
                load(
                    GatewaySettings,
                    **{name: value for name, value in common.items() if name != "data_dir"},
                    **targets,
                    generator_target=generator_at,
                    http="off",
                    auth="token",
                    admin_token=ADMIN_TOKEN,
                ),
                **{"remember": SOON, "recheck": SOON, **gateway_options},
            )
        )
        await eventually(lambda: gateway.started.done() and generator.server.serving)
        channel = await stack.enter_async_context(open_channel(gateway.address))
        yield House(storage.address, generator_at, gateway.address, channel, stack, folder)


@pytest.fixture
def new_house() -> Any:
    """What opens another house."""
    return open_house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """A house on SQLite."""
    async with open_house(None) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgres"])
async def each_house(request) -> AsyncIterator[House]:
    """A house on each database."""
    if request.param == "sqlite":
        async with open_house(None) as opened:
            yield opened
        return
    server = request.getfixturevalue("postgres_server")
    name = server.create()
    try:
        async with open_house(server.url(name)) as opened:
            yield opened
    finally:
        server.drop(name)
