"""One request followed through three processes: by its id in their logs, and by its trace down to the provider's call."""

import asyncio
import json

import grpc
from otlp import receiving
from processes import cluster

from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch.gateway.v1.execution_service_pb2_grpc import ExecutionServiceStub
from nanobatch_runtime.testing import eventually

MODEL, KEY = "gemini-2.5-flash-image", "a-provider-key-for-tests"
PROMPT = "a lighthouse that nobody else has thought of"
REQUEST, TRACE, CALLER = "find-me.1", "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


async def created(target: str, *metadata: tuple[str, str]) -> str:
    """Make a run of two prompts and watch it to its end; returns its id."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = ExecutionServiceStub(channel)
        request = pb.CreateExecutionRequest(model=MODEL, api_key=KEY, prompts_text=f"{PROMPT}\n\n{PROMPT}, at night")
        response = await stub.CreateExecution(request, metadata=metadata, timeout=60)
        async for _ in stub.WatchExecution(pb.WatchExecutionRequest(execution_id=response.execution.id), timeout=120):
            pass
    return response.execution.id


async def test_a_request_is_found_in_the_logs_of_all_services_and_its_trace_reaches_the_provider(
    tmp_path, gemini, connect
):
    with receiving() as receiver, cluster(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url) as services:
        processes = [services.storage(), services.generator("one", gemini.url), services.gateway()]
        client = await connect(services.target)
        parent = f"00-{TRACE}-{CALLER}-01"
        execution = await created(services.target, ("x-request-id", REQUEST), ("traceparent", parent))
        other = await created(services.target)
        await client.__aexit__(None, None, None)
        for process in reversed(processes):
            process.terminate()
        for process in processes:  # what is left of the traces goes out at the end
            assert await asyncio.to_thread(process.wait, 90) == 0
        logs = {name: services.log(name) for name in ("gateway", "storage", "one")}

    # Logs: the same id in all three, with the execution, and nobody else's work under it.
    found = {name: [line for line in lines(text) if line.get("request_id") == REQUEST] for name, text in logs.items()}
    for name in ("gateway", "storage"):
        (line,) = [
            line for line in found[name] if line["event"] == "rpc.served" and line["method"] == "CreateExecution"
        ]
        assert (line["code"], line["execution"]) == ("OK", execution), name
    finished = [line for line in found["one"] if line["event"] == "result.finished"]
    assert [line["execution"] for line in finished] == [execution, execution]
    assert all(line["result"] and line["attempt"] for line in finished)
    ids = {line["request_id"] for line in lines(logs["gateway"]) if line.get("execution") == other}
    assert len(ids) >= 1  # one for the call that made it, one for the watch
    assert REQUEST not in ids
    assert all(len(each) == 32 for each in ids)

    # Traces: from the caller's own span to the provider's call, without a gap.
    spans = {span.id: span for span in receiver.spans if span.trace == TRACE}
    calls = [span for span in spans.values() if span.name == "call of the provider"]
    assert len(calls) == 2
    for call in calls:
        assert call.service == "nanobatch-generator"
        assert call.attributes["nanobatch.model"] == MODEL
        road, span = [], call
        while span is not None:
            road.append((span.service, span.name))
            last, span = span, spans.get(span.parent)
        assert last.parent == CALLER
        assert road == [
            ("nanobatch-generator", "call of the provider"),
            ("nanobatch-generator", "work on a result"),
            ("nanobatch-storage", "/nanobatch.storage.v1.ExecutionService/CreateExecution"),
            ("nanobatch-gateway", "/nanobatch.gateway.v1.ExecutionService/CreateExecution"),
        ]
    served = {span.name.rpartition("/")[2] for span in spans.values() if span.service == "nanobatch-storage"}
    assert {"StartAttempt", "CompleteResult"} <= served  # what the generator asks of storage belongs to it, too
    own = [span for span in receiver.spans if span.name == "call of the provider" and span.trace != TRACE]
    assert len(own) == 2
    assert len({span.trace for span in own}) == 1  # one trace for each request

    # Neither holds a key or a prompt.
    told = "".join(logs.values()) + "".join(span.text for span in receiver.spans)
    assert KEY not in told
    assert PROMPT not in told


async def test_a_receiver_that_is_away_costs_nothing_but_its_traces(tmp_path, gemini, connect):
    with cluster(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") as services:
        processes = [services.storage(), services.generator("one", gemini.url), services.gateway()]
        await (await connect(services.target)).__aexit__(None, None, None)
        await created(services.target)
        assert len(gemini.calls) == 2
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            assert await asyncio.to_thread(process.wait, 90) == 0


async def test_an_id_that_is_none_is_not_taken_over(tmp_path, connect):
    with cluster(tmp_path) as services:
        services.storage()
        services.gateway()
        await (await connect(services.target)).__aexit__(None, None, None)
        async with grpc.aio.insecure_channel(services.target) as channel:
            stub = ExecutionServiceStub(channel)
            for bad in ("x" * 65, "two words", "a/b"):
                metadata = (("x-request-id", bad),)
                await stub.ListExecutions(pb.ListExecutionsRequest(), metadata=metadata, timeout=60)

        def told() -> list[dict]:
            return [line for line in lines(services.log("gateway")) if line.get("method") == "ListExecutions"]

        await eventually(lambda: len(told()) >= 3)
        assert all(len(line["request_id"]) == 32 for line in told())
