"""The port for those who look after a process: metrics and health over HTTP, apart from the ports that serve.

It answers from threads of its own, so that reading metrics never holds up the event loop, and shows a loop that stands
still for what it is.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6, socket
from socketserver import BaseServer
from typing import Any

import structlog
from prometheus_client.exposition import choose_encoder

from nanobatch_runtime.addresses import is_loopback
from nanobatch_runtime.errors import UnavailableError
from nanobatch_runtime.lifecycle import LoopLag
from nanobatch_runtime.metrics import LOOP_LAG, REGISTRY, TASKS
from nanobatch_runtime.settings import ObservedSettings
from nanobatch_runtime.tracing import tracing

_log = structlog.get_logger("nanobatch.observing")

_PATIENCE_SECONDS = 5.0
"""How long a client may be silent."""
_MOST_CLIENTS = 16
_TURN_SECONDS = 1.0
"""How long a loop that is alive may need for one turn."""
_PORT = re.compile(r":\d+$")


class Observed:
    """What the port tells of this process besides its metrics."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """``loop`` is the process's."""
        self._loop = loop
        self._ready: Callable[[], bool] = lambda: False
        self.address = ""
        """``host:port`` with the real port; empty where there is no such port."""

    def ready_when(self, serves: Callable[[], bool]) -> None:
        """Let the process be ready whenever ``serves`` says so; before this it is not. Called from other threads."""
        self._ready = serves

    def is_ready(self) -> bool:
        """Say what the standard gRPC health service says to the empty name."""
        return self._ready()

    def is_live(self) -> bool:
        """Say whether the loop turns: what it is asked to do is done within a second."""
        turned = threading.Event()
        try:
            self._loop.call_soon_threadsafe(turned.set)
        except RuntimeError:  # it is closed
            return False
        return turned.wait(_TURN_SECONDS)


@asynccontextmanager
async def observing(
    settings: ObservedSettings, service: str, *, lag: LoopLag | None = None
) -> AsyncGenerator[Observed]:
    """Let others look at this process, as far as its settings say, while the context is open.

    ``service`` is its name in traces, ``lag`` a measurement that goes on already. Raises UnavailableError
    (ADDRESS_IN_USE).
    """
    async with tracing(settings.otlp_endpoint, service), _answering(settings.metrics, lag) as observed:
        yield observed


@asynccontextmanager
async def _answering(address: str, lag: LoopLag | None) -> AsyncGenerator[Observed]:
    observed = Observed(asyncio.get_running_loop())
    if not address:
        yield observed
        return
    server = _listen(address, observed)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    _log.info("metrics.listening", address=observed.address)
    try:
        async with AsyncExitStack() as stack:
            recent = (lag if lag is not None else await stack.enter_async_context(LoopLag().measuring())).recent
            stack.enter_context(LOOP_LAG.of(lambda: {(): recent().total_seconds()}))
            loop = asyncio.get_running_loop()
            stack.enter_context(TASKS.of(lambda: {(): float(len(asyncio.all_tasks(loop)))}))
            yield observed
    finally:
        await asyncio.to_thread(_end, server, thread)


def _end(server: _Server, thread: threading.Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()


def _listen(address: str, observed: Observed) -> _Server:
    host, _, port = address.rpartition(":")
    try:
        server = _Server(host, int(port), observed)
    except OSError as error:
        message = (
            f"Cannot listen on {address}: is something else running there? NANOBATCH_METRICS takes another address."
        )
        raise UnavailableError(message, reason="ADDRESS_IN_USE") from error
    observed.address = f"{host}:{server.server_port}"
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    block_on_close = False  # a client that says nothing ends with its patience, and with the process

    def __init__(self, host: str, port: int, observed: Observed) -> None:
        self.address_family = AF_INET6 if host.startswith("[") else AF_INET
        self.observed = observed
        self.local = is_loopback(f"{host}:{port}")
        self._places = threading.BoundedSemaphore(_MOST_CLIENTS)
        super().__init__((host.strip("[]"), port), _Handler)

    def process_request(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """Answer in a thread, of which there are not more than a few."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that went away is no trouble of ours."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE_SECONDS
    server_version = "nanobatch"
    sys_version = ""
    server: BaseServer

    def do_GET(self) -> None:
        """Answer the three addresses that there are."""
        server = self.server
        assert isinstance(server, _Server)  # noqa: S101  # nothing else makes one
        # Any web page can have this machine's ports called under a name of its own; it is not to read the answer.
        if server.local and not is_loopback(_PORT.sub("", self.headers.get("Host", "")) + ":0"):
            self._say(HTTPStatus.MISDIRECTED_REQUEST, "This port has no such name.")
        elif self.path.partition("?")[0] == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, encode(REGISTRY), kind)
        elif self.path == "/healthz":
            self._tell(server.observed.is_live(), "The event loop turns.", "The event loop stands still.")
        elif self.path == "/readyz":
            self._tell(server.observed.is_ready(), "It serves.", "It does not serve: starting, waiting or draining.")
        else:
            self._say(HTTPStatus.NOT_FOUND, "There are /metrics, /healthz and /readyz.")

    def _tell(self, well: bool, yes: str, no: str) -> None:  # noqa: FBT001  # the answer itself
        self._say(HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE, yes if well else no)

    def _say(self, status: HTTPStatus, sentence: str) -> None:
        self._answer(status, f"{sentence}\n".encode(), "text/plain; charset=utf-8")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the standard library's name
        """Log nothing: those who look come every few seconds."""
