"""Spans through the OpenTelemetry SDK, sent over OTLP. Loaded where traces are wanted; the SDK may be missing elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_EXPORT_SECONDS = 5
_WIRE = TraceContextTextMapPropagator()


class Spans:
    """Makes spans and sends them. A receiver that is away loses spans and nothing else."""

    def __init__(self, endpoint: str, service: str) -> None:
        """``endpoint`` is ``http://host:port`` (plain) or ``https://...``; sampling and headers are the SDK's variables."""
        resource = Resource.create({"service.name": f"nanobatch-{service}"})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        plain = endpoint.startswith("http://")
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=plain, timeout=_EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("nanobatch")

    @contextmanager
    def span(self, parent: str, name: str, kind: str, attributes: dict[str, str]) -> Iterator[str]:
        """Trace what is done in the context, under the ``traceparent`` of what it is a part of; gives its own."""
        context = _WIRE.extract({"traceparent": parent})
        begun = self._tracer.start_span(name, context=context, kind=SpanKind[kind], attributes=attributes)
        own = begun.get_span_context()
        try:
            yield f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
        except BaseException as error:
            begun.set_status(StatusCode.ERROR, type(error).__name__)  # its text may quote a prompt
            raise
        finally:
            begun.end()

    def close(self) -> None:
        """Send what is left, for a few seconds at most. Blocks."""
        self._provider.shutdown()
