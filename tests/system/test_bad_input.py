"""Bad input to the real product: a precise status that names every field, nothing stored, nothing in the log."""

from __future__ import annotations

import sqlite3
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from fakes.pictures import noise_png
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import Product, product

from nanobatch.gateway.v1 import execution_pb2, image_pb2, image_service_pb2, model_service_pb2
from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch.gateway.v1.execution_service_pb2_grpc import ExecutionServiceStub
from nanobatch.gateway.v1.image_service_pb2_grpc import ImageServiceStub
from nanobatch.gateway.v1.model_service_pb2_grpc import ModelServiceStub

MODEL, KEY = "gemini-2.5-flash-image", "a-provider-key-for-tests"
MIB = 1024 * 1024
NOBODY = "7d444840-9dc0-41d4-8c6e-0123456789ab"
TABLES = (
    "executions",
    "results",
    "attempts",
    "images",
    "credentials",
    "buckets",
    "workflows",
    "users",
    "retry_requests",
)

COUNT = "select count(*) from "


class Server:
    """The product, and what it holds."""

    def __init__(self, running: Product, channel: grpc.Channel) -> None:
        self.channel = channel
        self.executions = ExecutionServiceStub(channel)
        self.images = ImageServiceStub(channel)
        self.models = ModelServiceStub(channel)
        self.data = running.data

    def stored(self) -> dict[str, int]:
        """Count the rows of every table, and the pictures on disk."""
        with sqlite3.connect(f"file:{self.data / 'nanobatch.db'}?mode=ro", uri=True) as database:
            counts = {table: database.execute(COUNT + table).fetchone()[0] for table in TABLES}
        return counts | {"files": sum(path.is_file() for path in (self.data / "pictures").rglob("*"))}

    def upload(self, data: bytes, filename: str = "a.png") -> Any:
        return self.images.UploadImage(iter(upload_of(data, filename)), timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("bad-input")
    # No call may leave this machine, whatever is accepted by mistake.
    with (
        product(folder, upstream_url="http://127.0.0.1:9", environment={"NANOBATCH_SANDBOX_DELAY": "0"}) as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        ModelServiceStub(channel).ListModels(model_service_pb2.ListModelsRequest(), wait_for_ready=True, timeout=60)
        started = Server(running, channel)
        _when_started(started)
        yield started
    log = (folder / "up.log").read_text()
    assert "Traceback" not in log
    assert "incident" not in log
    assert KEY not in log


@pytest.fixture
def unchanged(server) -> Iterator[None]:
    """What a refused request leaves behind: nothing."""
    before = server.stored()
    yield
    assert server.stored() == before


class Refusal:
    """An error as any gRPC client reads it."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.code = error.code().name
        self.message = error.details()
        self.info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in rpc_status.from_call(error).details:
            detail.Unpack(self.info) or detail.Unpack(bad)
        self.reason = self.info.reason
        self.fields = {violation.field: violation.reason for violation in bad.field_violations}
        assert self.info.domain == "nanobatch"
        assert self.reason
        assert self.message.endswith((".", "?"))
        assert all(violation.description for violation in bad.field_violations)


def refused(call: Callable[[], Any]) -> Refusal:
    def whole() -> None:
        answer = call()
        if isinstance(answer, grpc.Call):  # a stream: it fails when it is read
            list(answer)

    with pytest.raises(grpc.RpcError) as caught:
        whole()
    return Refusal(caught.value)


def request(**fields: Any) -> pb.CreateExecutionRequest:
    """Return a good request, with some fields otherwise."""
    given = {"model": MODEL, "api_key": KEY, "prompts": [pb_prompt("a boat")]} | fields
    return pb.CreateExecutionRequest(**{name: value for name, value in given.items() if value is not None})


def pb_prompt(text: str, **fields: Any) -> execution_pb2.Prompt:
    return execution_pb2.Prompt(text=text, **fields)


def upload_of(data: bytes, filename: str) -> Iterator[image_service_pb2.UploadImageRequest]:
    yield image_service_pb2.UploadImageRequest(header=image_pb2.ImageHeader(filename=filename))
    for at in range(0, len(data), 256 * 1024):
        yield image_service_pb2.UploadImageRequest(chunk=data[at : at + 256 * 1024])


def bomb() -> bytes:
    """Return 22 KB that say they are 177 megapixels, and are."""
    width, height = 20_000, 8_850
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(1 + width // 8)) for _ in range(height)) + packer.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


LONG = "x" * 10_001
UNSUPPORTED = "NOT_SUPPORTED_YET"
OUTPUT = execution_pb2.OutputOptions

CASES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "no prompts": ({"prompts": None}, {"prompts": "REQUIRED"}),
    "a text without prompts": ({"prompts": None, "prompts_text": " \n\n "}, {"prompts_text": "REQUIRED"}),
    "101 prompts": ({"prompts": [pb_prompt("a")] * 101}, {"prompts": "TOO_MANY"}),
    "a text of 101 prompts": ({"prompts": None, "prompts_text": "a\n\n" * 101}, {"prompts_text": "TOO_MANY"}),
    "both kinds of prompts": ({"prompts_text": "b"}, {"prompts_text": "CONFLICT"}),
    "10,001 characters": ({"prompts": [pb_prompt("a"), pb_prompt(LONG)]}, {"prompts[1].text": "TOO_LONG"}),
    "10,001 characters in a text": ({"prompts": None, "prompts_text": LONG}, {"prompts_text": "TOO_LONG"}),
    "10,001 characters with its prefix": (
        {"prompt_prefix": "x", "prompts": [pb_prompt("y" * 9_999)]},
        {"prompts[0].text": "TOO_LONG"},
    ),
    "an unknown model": ({"model": "no-such-model"}, {"model": "UNKNOWN_MODEL"}),
    "no model": ({"model": ""}, {"model": "REQUIRED"}),
    "no key": ({"api_key": None}, {"api_key": "REQUIRED"}),
    "a ratio the model lacks": ({"output": OUTPUT(aspect_ratio="17:1")}, {"output.aspect_ratio": "NOT_OFFERED"}),
    "a size the model lacks": ({"output": OUTPUT(image_size="8K")}, {"output.image_size": "NOT_OFFERED"}),
    "4 references": (
        {"reference_image_ids": [NOBODY] * 4},
        {"reference_image_ids": "TOO_MANY"} | {f"reference_image_ids[{n}]": "NOT_FOUND" for n in range(3)},
    ),
    "an unknown source": (
        {"prompts": [pb_prompt("a", source_image_id=NOBODY)]},
        {"prompts[0].source_image_id": "NOT_FOUND"},
    ),
    "5 variations": ({"variations": 5}, {"variations": "OUT_OF_RANGE"}),
    "0 variations of a prompt": (
        {"prompts": [pb_prompt("a", variations=0)]},
        {"prompts[0].variations": "OUT_OF_RANGE"},
    ),
    "a negative cap": ({"max_cost_micros": -1}, {"max_cost_micros": "OUT_OF_RANGE"}),
    "no time": ({"timeout": duration_pb2.Duration()}, {"timeout": "OUT_OF_RANGE"}),
    "all of time": ({"timeout": duration_pb2.Duration(seconds=315_576_000_000)}, {"timeout": "OUT_OF_RANGE"}),
    "an enum from the future": ({"mode": 9, "on_unknown": 9}, {"mode": "UNKNOWN_VALUE", "on_unknown": "UNKNOWN_VALUE"}),
    "an id that is none": ({"request_id": "1"}, {"request_id": "MALFORMED"}),
    "a control character": ({"prompts": [pb_prompt("a\0b")]}, {"prompts[0].text": "MALFORMED"}),
    "a label without a key": ({"labels": {"": "x"}}, {'labels[""]': "REQUIRED"}),
    "33 labels": ({"labels": {str(n): "x" for n in range(33)}}, {"labels": "TOO_MANY"}),
    "a saved key": ({"api_key": None, "credential_id": NOBODY}, {"credential_id": UNSUPPORTED}),
    "ECONOMY": ({"mode": execution_pb2.EXECUTION_MODE_ECONOMY}, {"mode": UNSUPPORTED}),
    "another format": ({"output": OUTPUT(format="webp")}, {"output.format": UNSUPPORTED}),
    "the source's size": ({"output": OUTPUT(match_source_size=True)}, {"output.match_source_size": UNSUPPORTED}),
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("fields", "violations"), CASES.values(), ids=CASES.keys())
def test_a_bad_field_is_named_and_nothing_is_stored(server, fields, violations):
    found = refused(lambda: server.executions.CreateExecution(request(**fields), timeout=30))
    assert found.code == "INVALID_ARGUMENT"
    assert found.fields == violations
    unsupported = set(violations.values()) == {UNSUPPORTED}
    assert (found.reason == UNSUPPORTED) == unsupported
    # A price is refused for the same reasons, except for what is said of the key and the request's own id.
    if not violations.keys() & {"api_key", "credential_id", "request_id"}:
        priced = refused(
            lambda: server.executions.EstimateCost(pb.EstimateCostRequest(execution=request(**fields)), timeout=30)
        )
        assert (priced.code, priced.fields) == (found.code, found.fields)


@pytest.mark.usefixtures("unchanged")
def test_all_wrong_fields_are_named_at_once(server):
    wrong = request(
        request_id="me",
        api_key=" ",
        prompts=[pb_prompt(""), pb_prompt("good"), pb_prompt(LONG, variations=9, source_image_id="none")],
        output=OUTPUT(aspect_ratio="1:99", image_size="huge", format="tiff", match_source_size=True),
        variations=0,
        seed=-1,
        mode=execution_pb2.EXECUTION_MODE_ECONOMY,
        max_attempts=99,
        reference_image_ids=["x"],
        parent_execution_id="x",
        workflow_id="x",
    )
    found = refused(lambda: server.executions.CreateExecution(wrong, timeout=30))
    assert found.code == "INVALID_ARGUMENT"
    assert found.reason != UNSUPPORTED
    assert set(found.fields) == {
        "request_id",
        "workflow_id",
        "parent_execution_id",
        "api_key",
        "prompts[0].text",
        "prompts[2].text",
        "prompts[2].variations",
        "prompts[2].source_image_id",
        "reference_image_ids[0]",
        "output.aspect_ratio",
        "output.image_size",
        "output.format",
        "output.match_source_size",
        "variations",
        "seed",
        "mode",
        "max_attempts",
    }


@pytest.mark.usefixtures("unchanged")
def test_more_wrong_fields_than_an_answer_holds_still_get_an_answer(server):
    found = refused(lambda: server.executions.CreateExecution(request(prompts=[pb_prompt("")] * 100), timeout=30))
    assert found.code == "INVALID_ARGUMENT"
    assert "MORE_VIOLATIONS" in found.fields.values()


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("data", "filename", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(11 * MIB), "big.png", "TOO_LONG"),
        (b"this is a text, whatever its name says\n" * 50, "text.png", "NOT_A_PICTURE"),
        (bomb(), "bomb.png", "PICTURE_TOO_LARGE"),
        (noise_png(60_000)[:30_000], "truncated.png", "PICTURE_DAMAGED"),
        (b"", "empty.png", "REQUIRED"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "drawing.svg", "NOT_A_PICTURE"),
    ],
    ids=["11 MiB", "a text", "a bomb", "a truncated PNG", "nothing", "a drawing"],
)
def test_a_bad_upload_is_refused_and_nothing_is_stored(server, data, filename, reason):
    found = refused(lambda: server.upload(data, filename))
    assert (found.code, found.fields) == ("INVALID_ARGUMENT", {"chunk": reason})


@pytest.mark.usefixtures("unchanged")
def test_an_upload_without_its_header_or_with_two_is_refused(server):
    good = noise_png(40_000)
    chunks = list(upload_of(good, "a.png"))
    for pieces in (chunks[1:], [chunks[0], chunks[0], *chunks[1:]], []):
        found = refused(lambda pieces=pieces: server.images.UploadImage(iter(pieces), timeout=30))
        assert found.code == "INVALID_ARGUMENT"
        assert list(found.fields) == ["header"]
    kind = image_pb2.ImageHeader(kind=image_pb2.IMAGE_KIND_MASTER, filename="n" * 256)
    header = image_service_pb2.UploadImageRequest(header=kind)
    found = refused(lambda: server.images.UploadImage(iter([header, *chunks[1:]]), timeout=30))
    assert set(found.fields) == {"header.kind", "header.filename"}


BY_ID: dict[str, tuple[Callable[[Server, str], Any], str, str]] = {
    "GetExecution": (
        lambda s, i: s.executions.GetExecution(pb.GetExecutionRequest(execution_id=i)),
        "execution_id",
        "EXECUTION_NOT_FOUND",
    ),
    "WatchExecution": (
        lambda s, i: s.executions.WatchExecution(pb.WatchExecutionRequest(execution_id=i), timeout=30),
        "execution_id",
        "EXECUTION_NOT_FOUND",
    ),
    "CancelExecution": (
        lambda s, i: s.executions.CancelExecution(pb.CancelExecutionRequest(execution_id=i)),
        "execution_id",
        "EXECUTION_NOT_FOUND",
    ),
    "PauseExecution": (
        lambda s, i: s.executions.PauseExecution(pb.PauseExecutionRequest(execution_id=i)),
        "execution_id",
        "EXECUTION_NOT_FOUND",
    ),
    "ResumeExecution": (
        lambda s, i: s.executions.ResumeExecution(pb.ResumeExecutionRequest(execution_id=i)),
        "execution_id",
        "EXECUTION_NOT_FOUND",
    ),
    "ResumeExecution with a key": (
        lambda s, i: s.executions.ResumeExecution(pb.ResumeExecutionRequest(execution_id=i, api_key=KEY)),
        "execution_id",
        "EXECUTION_NOT_FOUND",
    ),
    "RetryExecution": (
        lambda s, i: s.executions.RetryExecution(pb.RetryExecutionRequest(execution_id=i)),
        "execution_id",
        "EXECUTION_NOT_FOUND",
    ),
    "DeleteExecution": (
        lambda s, i: s.executions.DeleteExecution(pb.DeleteExecutionRequest(execution_id=i)),
        "execution_id",
        "EXECUTION_NOT_FOUND",
    ),
    "ListResults": (
        lambda s, i: s.executions.ListResults(pb.ListResultsRequest(execution_id=i)),
        "execution_id",
        "EXECUTION_NOT_FOUND",
    ),
    "GetResult": (
        lambda s, i: s.executions.GetResult(pb.GetResultRequest(result_id=i)),
        "result_id",
        "RESULT_NOT_FOUND",
    ),
    "GetImage": (
        lambda s, i: s.images.GetImage(image_service_pb2.GetImageRequest(image_id=i)),
        "image_id",
        "IMAGE_NOT_FOUND",
    ),
    "DownloadImage": (
        lambda s, i: s.images.DownloadImage(image_service_pb2.DownloadImageRequest(image_id=i), timeout=30),
        "image_id",
        "IMAGE_NOT_FOUND",
    ),
    "ExportExecution": (
        lambda s, i: s.images.ExportExecution(image_service_pb2.ExportExecutionRequest(execution_id=i), timeout=30),
        "execution_id",
        "EXECUTION_NOT_FOUND",
    ),
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("call", "field", "reason"), BY_ID.values(), ids=BY_ID.keys())
def test_an_unknown_id_is_not_found_and_a_malformed_or_missing_one_is_named(server, call, field, reason):
    unknown = refused(lambda: call(server, NOBODY))
    assert (unknown.code, unknown.reason) == ("NOT_FOUND", reason)
    for bad, why in (
        ("", "REQUIRED"),
        ("nonsense", "MALFORMED"),
        (NOBODY.upper(), "MALFORMED"),
        ("'; --", "MALFORMED"),
    ):
        found = refused(lambda bad=bad: call(server, bad))
        assert (found.code, found.fields) == ("INVALID_ARGUMENT", {field: why})


def test_every_method_that_takes_an_id_is_asked_for_an_unknown_one():
    asked = {name.split()[0] for name in BY_ID}
    takers = {
        method.name
        for service in (
            pb.DESCRIPTOR.services_by_name["ExecutionService"],
            image_service_pb2.DESCRIPTOR.services_by_name["ImageService"],
        )
        for method in service.methods
        if {"execution_id", "result_id", "image_id"} & set(method.input_type.fields_by_name)
    }
    assert takers == asked


@pytest.mark.usefixtures("unchanged")
def test_a_run_that_belongs_to_something_unknown_is_not_created(server):
    wanted = request(workflow_id=NOBODY, parent_execution_id=NOBODY)
    found = refused(lambda: server.executions.CreateExecution(wanted, timeout=30))
    assert found.code == "INVALID_ARGUMENT"
    assert found.fields == {"workflow_id": "NOT_FOUND", "parent_execution_id": "NOT_FOUND"}


def test_a_page_token_of_another_list_or_of_nobody_is_refused(server):
    made = [finished(server, f"run {n}", count=3) for n in range(2)]
    before = server.stored()
    listed = server.executions.ListResults(pb.ListResultsRequest(execution_id=made[0], page_size=1))
    runs = server.executions.ListExecutions(pb.ListExecutionsRequest(page_size=1))
    assert listed.next_page_token
    assert runs.next_page_token
    results = server.executions.ListResults
    wrong = [
        lambda: results(pb.ListResultsRequest(execution_id=made[1], page_token=listed.next_page_token)),
        lambda: results(pb.ListResultsRequest(execution_id=made[0], page_token=runs.next_page_token)),
        lambda: results(pb.ListResultsRequest(execution_id=made[0], page_token=listed.next_page_token, states=[3])),
        lambda: server.executions.ListExecutions(pb.ListExecutionsRequest(page_token=listed.next_page_token)),
        *(
            (lambda token=token: server.executions.ListExecutions(pb.ListExecutionsRequest(page_token=token)))
            for token in (
                "rubbish",
                "=",
                "ünïcode",
                "A" * 10_000,
                runs.next_page_token[:-2],
                runs.next_page_token + "A",
            )
        ),
    ]
    for call in wrong:
        found = refused(call)
        assert (found.code, found.fields) == ("INVALID_ARGUMENT", {"page_token": "MALFORMED"})
    for size in (-1, 1_001):
        found = refused(lambda size=size: server.executions.ListExecutions(pb.ListExecutionsRequest(page_size=size)))
        assert found.fields == {"page_size": "OUT_OF_RANGE"}
    assert server.stored() == before


def test_a_retry_or_resume_of_what_cannot_be_retried_or_resumed_says_why(server):
    execution_id, other = finished(server, "a boat"), finished(server, "a car")
    before = server.stored()
    foreign = server.executions.ListResults(pb.ListResultsRequest(execution_id=other)).results[0].id
    own = server.executions.ListResults(pb.ListResultsRequest(execution_id=execution_id)).results[0].id

    def retry(**fields: Any) -> Refusal:
        asked = pb.RetryExecutionRequest(execution_id=execution_id, **fields)
        return refused(lambda: server.executions.RetryExecution(asked, timeout=30))

    assert retry().reason == "NOTHING_TO_RETRY"
    found = retry(result_ids=[NOBODY, own, foreign])
    assert (found.code, found.fields) == (
        "INVALID_ARGUMENT",
        {"result_ids[0]": "NOT_FOUND", "result_ids[1]": "NOT_RETRIABLE", "result_ids[2]": "NOT_FOUND"},
    )
    edited = retry(edits=[pb.PromptEdit(result_id=own, text="another")])
    assert edited.fields == {"edits[0].result_id": "NOT_RETRIED"}
    named = retry(
        result_ids=["x", NOBODY], request_id="y", credential_id=NOBODY, edits=[pb.PromptEdit(result_id="z", text=LONG)]
    )
    assert set(named.fields) >= {"result_ids[0]", "request_id", "credential_id", "edits[0].result_id", "edits[0].text"}
    for call in (
        lambda: server.executions.ResumeExecution(pb.ResumeExecutionRequest(execution_id=execution_id)),
        lambda: server.executions.PauseExecution(pb.PauseExecutionRequest(execution_id=execution_id)),
    ):
        assert refused(call).code == "FAILED_PRECONDITION"
    negative = pb.ResumeExecutionRequest(execution_id=execution_id, max_cost_micros=-1, credential_id=NOBODY)
    assert set(refused(lambda: server.executions.ResumeExecution(negative)).fields) == {
        "max_cost_micros",
        "credential_id",
    }
    assert server.stored() == before


def test_a_request_id_belongs_to_one_request(server):
    request_id = str(uuid.uuid4())
    once = request(model="sandbox", api_key=None, request_id=request_id)
    first = server.executions.CreateExecution(once, timeout=30)
    before = server.stored()
    assert server.executions.CreateExecution(once, timeout=30).execution.id == first.execution.id
    ended(server, first.execution.id)
    once.prompts[0].text = "something else"
    assert refused(lambda: server.executions.CreateExecution(once, timeout=30)).code == "ALREADY_EXISTS"
    assert {table: count for table, count in server.stored().items() if table in {"executions", "results"}} == {
        table: before[table] for table in ("executions", "results")
    }


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("data", [b"\x1a\x02\xff\xfe", b"\x0a\xff"], ids=["not UTF-8", "cut off"])
def test_bytes_that_are_no_message_are_the_callers_mistake(server, data):
    def raw(kind: str, method: str) -> Callable[..., Any]:
        return getattr(server.channel, kind)(f"/nanobatch.gateway.v1.{method}")

    for call in (
        lambda: raw("unary_unary", "ExecutionService/CreateExecution")(data, timeout=30),
        lambda: raw("unary_stream", "ImageService/DownloadImage")(b"\x0a\x02\xff\xfe", timeout=30),
        lambda: raw("stream_unary", "ImageService/UploadImage")(iter([b"\x0a\xff"]), timeout=30),
    ):
        found = refused(call)
        assert (found.code, found.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")


def test_a_page_is_never_larger_than_a_message(server):
    prompts = [pb_prompt("[delay:0.2]" + "🛶" * 9_980)] * 100
    wanted = request(model="sandbox", api_key=None, prompts=prompts, variations=4)
    execution_id = server.executions.CreateExecution(wanted, timeout=60).execution.id
    server.executions.CancelExecution(pb.CancelExecutionRequest(execution_id=execution_id), timeout=30)
    places, token = [], ""
    while True:
        asked = pb.ListResultsRequest(execution_id=execution_id, page_size=1_000, page_token=token)
        page = server.executions.ListResults(asked, timeout=30)
        places += [(result.batch_index, result.variation) for result in page.results]
        token = page.next_page_token
        if not token:
            break
    assert places == [(prompt, variation) for prompt in range(100) for variation in range(4)]
    ended(server, execution_id)


@pytest.mark.usefixtures("unchanged")
def test_a_key_check_names_what_is_missing(server):
    found = refused(lambda: server.models.CheckApiKey(model_service_pb2.CheckApiKeyRequest(), timeout=30))
    assert found.code == "INVALID_ARGUMENT"
    assert "model" in found.fields
    keyless = model_service_pb2.CheckApiKeyRequest(model=MODEL)
    assert refused(lambda: server.models.CheckApiKey(keyless, timeout=30)).fields == {"api_key": "REQUIRED"}


TEXTS = st.one_of(
    st.sampled_from(
        ["", " ", "a boat", "\ufeff", "\x00", "a\u200bb", "\\n\\n", LONG, "x" * 10_000, "🛶" * 10_001, "\r\n\r\n"]
    ),
    st.text(max_size=30),
)
IDS = st.sampled_from(["", "", "", NOBODY, NOBODY.upper(), "x", "00000000-0000-0000-0000-000000000000"])
NUMBERS = st.sampled_from([None, None, None, 0, 1, 2, 4, 5, -1, 2**31 - 1, -(2**31)])
MONEY = st.sampled_from([None, None, 0, 1, -1, 2**63 - 1, -(2**63), 10**12])
DURATIONS = st.sampled_from(
    [
        None,
        None,
        duration_pb2.Duration(seconds=1),
        duration_pb2.Duration(nanos=-1),
        duration_pb2.Duration(nanos=2**31 - 1),
        duration_pb2.Duration(seconds=2**63 - 1),
        duration_pb2.Duration(seconds=-(2**63), nanos=-(2**31)),
    ]
)
OUTPUTS = st.builds(
    OUTPUT,
    aspect_ratio=st.sampled_from(["", "", "1:1", "16:9", "0:0", "x"]),
    image_size=st.sampled_from(["", "", "1K", "4K"]),
    format=st.sampled_from(["", "", "", "png"]),
    match_source_size=st.sampled_from([False, False, False, True]),
)
PROMPTS = st.builds(
    lambda text, source, references, variations: execution_pb2.Prompt(
        text=text, source_image_id=source, reference_image_ids=references, variations=variations
    ),
    TEXTS,
    IDS,
    st.lists(IDS, max_size=1),
    NUMBERS,
)
REQUESTS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["sandbox", "sandbox", "sandbox", MODEL, "", "none"]),
        "prompts": st.lists(PROMPTS, max_size=3),
        "prompts_text": st.one_of(st.just(""), TEXTS),
        "api_key": st.sampled_from([None, None, "", "\x00", "k" * 513]),
        "request_id": IDS,
        "workflow_id": IDS,
        "parent_execution_id": IDS,
        "prompt_prefix": st.one_of(st.just(""), TEXTS),
        "prompt_suffix": st.one_of(st.just(""), TEXTS),
        "reference_image_ids": st.lists(IDS, max_size=2),
        "output": OUTPUTS,
        "variations": NUMBERS,
        "seed": NUMBERS,
        "mode": st.sampled_from([0, 0, 1, 2, 3, -1]),
        "max_cost_micros": MONEY,
        "max_attempts": NUMBERS,
        "timeout": DURATIONS,
        "on_unknown": st.sampled_from([0, 0, 1, 2, 3, -1]),
        "labels": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    }
)
# Few fields wrong at a time, so that the later doors are reached as well.
SPOILED = st.tuples(
    REQUESTS, st.sets(st.sampled_from(["model", "prompts", "output", "labels", "seed", "timeout"]))
).map(lambda drawn: {name: value for name, value in drawn[0].items() if name in drawn[1]})


@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.one_of(REQUESTS, SPOILED))
def test_no_request_surprises_the_server(server, fields):
    wanted = request(**({"model": "sandbox", "api_key": None} | fields))
    before = server.stored()
    created = outcome(lambda: server.executions.CreateExecution(wanted, timeout=30))
    if isinstance(created, Refusal):
        assert created.code in {"INVALID_ARGUMENT", "ALREADY_EXISTS"}
        assert bool(created.fields) == (created.code == "INVALID_ARGUMENT")
        after = server.stored()
        assert (after["executions"], after["credentials"]) == (before["executions"], before["credentials"])
    else:
        server.executions.CancelExecution(pb.CancelExecutionRequest(execution_id=created.execution.id), timeout=30)
    priced = outcome(lambda: server.executions.EstimateCost(pb.EstimateCostRequest(execution=wanted), timeout=30))
    assert not isinstance(priced, Refusal) or priced.code == "INVALID_ARGUMENT"


def outcome(call: Callable[[], Any]) -> Any:
    """Return the answer, or how it was refused."""
    try:
        return call()
    except grpc.RpcError as error:
        return Refusal(error)


def finished(server: Server, text: str, *, count: int = 1) -> str:
    """Return the id of a run that has ended."""
    wanted = request(model="sandbox", api_key=None, prompts=[pb_prompt(text)], variations=count)
    execution_id = server.executions.CreateExecution(wanted, timeout=30).execution.id
    ended(server, execution_id)
    return execution_id


def ended(server: Server, execution_id: str) -> None:
    """Wait for the end of a run."""
    list(server.executions.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id), timeout=60))


def _when_started(server: Server) -> None:
    """Wait until storage was met."""
    while True:
        answer = outcome(lambda: server.executions.ListExecutions(pb.ListExecutionsRequest(), timeout=30))
        if not isinstance(answer, Refusal):
            return
        assert answer.reason == "STARTING"
