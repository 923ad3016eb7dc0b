"""What is told of every call that a server serves: under which id, how long it took, how it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from functools import cached_property, lru_cache
from types import TracebackType
from typing import Any, Self

import grpc
import structlog
from google.protobuf import descriptor_pool
from prometheus_client import Counter, Histogram

from nanobatch_runtime import requests, tracing
from nanobatch_runtime.errors import Kind, NanobatchError
from nanobatch_runtime.ids import is_id
from nanobatch_runtime.metrics import RPC_SECONDS, RPCS, RPCS_RUNNING
from nanobatch_runtime.rpc.repeats import REPEATS, Repeat

_log = structlog.get_logger("nanobatch.rpc")

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class Served:
    """One call, from its arrival to its end; a context around its handler. Raises nothing of its own."""

    def __init__(self, details: grpc.HandlerCallDetails, *, public: bool, streams: bool) -> None:
        """``public``: its caller is nobody of ours. ``streams``: it answers with more than one message."""
        self.path = str(details.method)
        """As gRPC has it: ``/package.Service/Method``."""
        self._of_method = _of_method(self.path)
        self._public = public
        self._streams = streams
        self._began = time.perf_counter()
        self._code = "OK"
        self._span = nullcontext() if streams else tracing.span(self.path, "SERVER")

    @staticmethod
    def arrived(details: grpc.HandlerCallDetails, *, public: bool) -> None:
        """Let all that follows in this task belong to the caller's request."""
        shown = {key: value for key, value in details.invocation_metadata or () if isinstance(value, str)}
        offered = shown.get(requests.HEADER, "")
        requests.adopt(requests.made_or(offered) if public else offered)
        tracing.adopt(shown.get(tracing.HEADER, ""))

    def asked(self, request: Any) -> None:
        """Note which execution it is about, where the request says so."""
        _about(getattr(request, "execution_id", ""))

    def answered(self, response: Any) -> None:
        """Note which execution it made."""
        _about(getattr(getattr(response, "execution", None), "id", ""))

    def failed(self, error: NanobatchError) -> None:
        """Note the error that it is answered with."""
        self._code = error.kind.value

    def aborted(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Note the status that the handler has set by itself."""
        code: Any = context.code()
        self._code = code.name if isinstance(code, grpc.StatusCode) else _CODES.get(code, "UNKNOWN")

    def __enter__(self) -> Self:
        """Begin."""
        self._span.__enter__()
        self._of_method.running.inc()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Count it and say so."""
        if kind is not None and issubclass(kind, asyncio.CancelledError | GeneratorExit):
            self._code = "CANCELLED"
        self._span.__exit__(kind, error, trace)
        seconds = time.perf_counter() - self._began
        of = self._of_method
        of.running.dec()
        of.ended(self._code).inc()
        if not self._streams:
            of.seconds.observe(seconds)
        tell = _log.info if self._public or of.is_a_users_change else _log.debug
        tell("rpc.served", service=of.service, method=of.method, code=self._code, seconds=round(seconds, 4))


def _about(execution_id: Any) -> None:
    if isinstance(execution_id, str) and is_id(execution_id):
        structlog.contextvars.bind_contextvars(execution=execution_id)


def _is_a_users_change(service: str, method: str) -> bool:
    """Say whether an internal call is worth a line each: reads, streams and the queue's calls are too many."""
    repeat = REPEATS.get(service, {}).get(method, Repeat.READ)
    return not service.endswith(".LeaseService") and repeat not in {Repeat.READ, Repeat.NO_STREAM}


def count_faults_from_0(services: Iterable[str]) -> None:
    """Show the faults of each method before there is one: no increase is seen of a series that begins with 1."""
    for service in services:
        with suppress(KeyError):  # its calls have the name of what nobody knows
            for method in descriptor_pool.Default().FindServiceByName(service).methods:
                RPCS.labels(service, method.name, Kind.INTERNAL.value)


class _OfMethod:
    """What is the same for all calls of a method: to look up its series costs more than to count in them."""

    def __init__(self, service: str, method: str) -> None:
        self.service, self.method = service, method
        self.running = RPCS_RUNNING.labels(service, method)
        self.is_a_users_change = _is_a_users_change(service, method)
        self._ended: dict[str, Counter] = {}

    @cached_property
    def seconds(self) -> Histogram:
        """The series of how long its calls take; made by the first call that counts there, which those of streams do not."""
        return RPC_SECONDS.labels(self.service, self.method)

    def ended(self, code: str) -> Counter:
        """The series of its calls that ended so."""
        found = self._ended.get(code)
        if found is None:
            found = self._ended[code] = RPCS.labels(self.service, self.method, code)
        return found


@lru_cache(maxsize=512)
def _of_method(path: str) -> _OfMethod:
    return _OfMethod(*_labels(path))


def _labels(path: str) -> tuple[str, str]:
    """Return service and method; of a method that nobody knows anything may stand in the path, so it gets one name."""
    service, _, method = path.strip("/").rpartition("/")
    try:
        descriptor_pool.Default().FindMethodByName(f"{service}.{method}")
    except KeyError:
        return "unknown", "unknown"
    return service, method
