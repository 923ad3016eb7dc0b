"""A gRPC server with health, reflection where wanted, and an end in named phases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from nanobatch_runtime.errors import UnavailableError
from nanobatch_runtime.rpc import options
from nanobatch_runtime.rpc.interceptors import ErrorInterceptor
from nanobatch_runtime.rpc.served import count_faults_from_0

LIVE = "live"
"""What a liveness probe asks the health service for: the answer says that the event loop turns, and nothing else.

A process that waits for what it needs is alive; the other names tell whether it serves.
"""


class RpcServer:
    """One listening server. Register servicers on :attr:`server`, then :meth:`start`; end it with :meth:`stop`."""

    def __init__(
        self,
        address: str,
        service_names: Sequence[str],
        *,
        public: bool = False,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        connection_age: timedelta = options.CONNECTION_AGE,
        longest_stream: timedelta = options.LONGEST_STREAM,
    ) -> None:
        """``address`` is ``host:port`` (port 0: a free one) or ``unix:/path``; ``service_names`` are full names.

        ``public``: anybody may call; each call gets an id of its own, and there is reflection. ``connection_age`` and
        ``longest_stream``: see :func:`nanobatch_runtime.rpc.options.server`.
        """
        self.address = address
        self.port = 0
        self.draining = asyncio.Event()
        """Set when the server begins to end: streams watch it and end resumably."""
        self.serving = False
        """What the health service says to the empty name."""
        self._names = [*service_names, ""]
        self._health = health.aio.HealthServicer()
        self.server = grpc.aio.server(
            interceptors=[ErrorInterceptor(public=public), *interceptors],
            options=options.server(address, connection_age=connection_age, longest_stream=longest_stream),
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        if public:
            names = [*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, self.server)

    async def start(self, *, serving: bool = True) -> None:
        """Listen; ``serving``: what health says from the first moment on.

        Raises :class:`UnavailableError` where the address is taken or not ours.
        """
        try:
            self.port = self.server.add_insecure_port(self.address)
        except RuntimeError as error:
            message = f"Cannot listen on {self.address}: is something else running there?"
            raise UnavailableError(message, reason="ADDRESS_IN_USE") from error
        count_faults_from_0(self._names)
        await self._health.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        await self.set_serving(serving=serving)
        await self.server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """Tell the standard health service, for every service and for the whole."""
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._health.set(name, state)
        self.serving = serving and not self.draining.is_set()

    async def drain(self) -> None:
        """Say no to new work and let streams end themselves."""
        await self._health.enter_graceful_shutdown()
        self.serving = False
        self.draining.set()

    async def stop(self, grace: timedelta = timedelta(seconds=5)) -> None:
        """Drain, wait for running calls up to ``grace``, close."""
        await self.drain()
        await self.server.stop(grace.total_seconds())
