import subprocess
import sys

import pytest
from otlp import receiving

from nanobatch_runtime import requests, tracing
from nanobatch_runtime.settings import ObservedSettings, SettingsError, load

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_off_nothing_is_kept_or_passed_on():
    tracing.adopt(PARENT)
    with tracing.span("anything", "SERVER"):
        assert tracing.current() == ""
        assert tracing.outgoing() == ()


def test_off_nothing_of_it_is_loaded():
    # redis-py loads opentelemetry.sdk.metrics by itself, wherever that is installed.
    names = "('nanobatch_runtime.tracing_otel', 'opentelemetry.sdk.trace', 'opentelemetry.exporter')"
    program = f"import sys, nanobatch_embedded.main; print([name for name in sys.modules if name.startswith({names})])"
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


async def test_a_span_is_part_of_what_was_being_done_and_tells_of_an_error_only_its_type():
    def fail():
        with tracing.span("inner", "CLIENT"):
            message = "a secret prompt"
            raise ValueError(message)

    with receiving() as receiver:
        async with tracing.tracing(receiver.url, "test"):
            tracing.adopt(PARENT)
            with tracing.span("outer", "SERVER", execution="e"):
                own = tracing.current()
                with pytest.raises(ValueError, match="secret"):
                    fail()
                assert tracing.current() == own
            assert tracing.current() == PARENT
        inner, outer = receiver.spans
    assert [outer.trace, outer.parent] == [PARENT.split("-")[1], PARENT.split("-")[2]]
    assert (inner.trace, inner.parent) == (outer.trace, outer.id)
    assert outer.attributes == {"nanobatch.execution": "e"}
    assert "ValueError" in inner.text
    assert "secret" not in inner.text


@pytest.mark.parametrize(
    "bad", ["", "nonsense", "00-zz-00f067aa0ba902b7-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"]
)
async def test_a_context_that_is_none_begins_a_trace_of_its_own(bad):
    with receiving() as receiver:
        async with tracing.tracing(receiver.url, "test"):
            tracing.adopt(bad)
            with tracing.span("alone", "SERVER"):
                pass
    (span,) = receiver.spans
    assert span.parent == ""


def test_where_traces_go_is_an_address(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        load(ObservedSettings)


async def test_a_request_id_is_bound_until_another_is_adopted():
    requests.adopt("one")
    assert requests.outgoing() == (("x-request-id", "one"),)
    requests.adopt("")
    assert requests.outgoing() == ()
    assert requests.made_or("mine-1") == "mine-1"
    assert len(requests.made_or("not mine")) == 32
