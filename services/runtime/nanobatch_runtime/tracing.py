"""Traces for OpenTelemetry: one for each call from outside, down to the provider's answer. Off unless told where they go.

Between services, and on the row of an execution, a trace is its W3C ``traceparent``, so that a generator's call belongs to
the trace of the request that created the run, however much later it is made. A thin layer of our own over the SDK: its
interceptors for grpc.aio cost a task per call, and off has to cost nothing (docs/adr/0021-metrics-and-traces.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from nanobatch_runtime.tracing_otel import Spans

HEADER = "traceparent"
"""Its name in gRPC metadata and HTTP headers (https://www.w3.org/TR/trace-context/)."""

_LENGTH = 55
_spans: Spans | None = None
_current: ContextVar[str] = ContextVar("nanobatch_traceparent", default="")


def adopt(traceparent: str) -> None:
    """Let the spans of this task, and of the tasks that it starts, belong to that trace; empty: each to a new one."""
    if _spans is not None:
        _current.set(traceparent if len(traceparent) == _LENGTH else "")


def current() -> str:
    """Return the ``traceparent`` of what is being done; empty where nothing is traced."""
    return _current.get()


def outgoing() -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call that is part of what is being done."""
    traceparent = _current.get()
    return ((HEADER, traceparent),) if traceparent else ()


@contextmanager
def span(name: str, kind: Literal["SERVER", "CLIENT", "INTERNAL"], **attributes: str) -> Iterator[None]:
    """Trace what is done in the context, as a part of what was being done. It must end in the task in which it began.

    Attributes are ids and names, never a prompt or a key; of what is raised only the type is told.
    """
    if _spans is None:
        yield
        return
    named = {f"nanobatch.{key}": value for key, value in attributes.items()}
    with _spans.span(_current.get(), name, kind, named) as own:
        token = _current.set(own)
        try:
            yield
        finally:
            _current.reset(token)


@asynccontextmanager
async def tracing(endpoint: str, service: str) -> AsyncGenerator[None]:
    """Send spans to an OTLP receiver over gRPC while the context is open (empty: trace nothing).

    At the end what is left has a few seconds to go out.
    """
    global _spans  # noqa: PLW0603  # a process has one, like its log
    if not endpoint:
        yield
        return
    spans: Spans = import_module("nanobatch_runtime.tracing_otel").Spans(endpoint, service)
    _spans = spans
    try:
        yield
    finally:
        _spans = None
        await asyncio.to_thread(spans.close)
