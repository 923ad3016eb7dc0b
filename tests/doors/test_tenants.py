"""Users are invisible to each other: a foreign id, in whatever field, is answered exactly like an unknown one.

The fields are found by walking the descriptors: a new one is tested without a line here, a new method needs one.
"""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import pytest
import pytest_asyncio
from contract import Metadata, Method, Outcome, bearer, call, methods, naming_fields, with_value
from google.protobuf.message import Message
from PIL import Image

from nanobatch_client import Client
from nanobatch_client.models import ResultState
from nanobatch_gateway.auth import RULES, Rule

pytestmark = pytest.mark.asyncio(loop_scope="module")

SANDBOX = {"model": "sandbox", "prompts": [{"text": "a boat"}]}
IMAGE_HEADER = {"header": {"kind": "IMAGE_KIND_REFERENCE"}}

# For each method requests that are good but for the id: fields by name, and {kind} where something of ours belongs.
REQUESTS: dict[str, list[dict[str, Any]]] = {
    "AccountService/CreateToken": [{"name": "x"}],
    "AccountService/CreateUser": [{"name": "x"}],
    "AccountService/ListTokens": [{}],
    "AccountService/ListUsers": [{}],
    "AccountService/RevokeToken": [{}],
    "AccountService/UpdateUser": [{"user": {"name": "x"}, "update_mask": {"paths": ["name"]}}],
    "AccountService/WhoAmI": [],
    "AnalyticsService/GetServerStats": [],
    "AnalyticsService/GetUsage": [{}, {"group_by": ["USAGE_GROUPING_DAY"]}],
    "ExecutionService/CancelExecution": [{}],
    "ExecutionService/CreateExecution": [SANDBOX],
    "ExecutionService/DeleteExecution": [{}],
    "ExecutionService/EstimateCost": [{"execution": SANDBOX}],
    "ExecutionService/GetExecution": [{}],
    "ExecutionService/GetResult": [{}],
    "ExecutionService/ListExecutions": [{}],
    "ExecutionService/ListResults": [{"execution_id": "{execution}"}, {"states": ["RESULT_STATE_COMPLETED"]}],
    "ExecutionService/PauseExecution": [{}],
    "ExecutionService/ResumeExecution": [{}, {"max_cost_micros": 5}, {"api_key": "some-key"}],
    "ExecutionService/RetryExecution": [
        {"execution_id": "{done}"},
        {"execution_id": "{execution}", "edits": [{"result_id": "{result}", "text": "another"}]},
        {"execution_id": "{execution}", "api_key": "some-key"},
    ],
    "ExecutionService/WatchExecution": [{}, {"after_revision": 1}, {"after_revision": 1_000_000}],
    "ImageService/DownloadImage": [{}],
    "ImageService/ExportExecution": [{}, {"execution_id": "{execution}", "result_ids": ["{result}"]}],
    "ImageService/GetImage": [{}],
    "ImageService/UploadImage": [],
    "ModelService/CheckApiKey": [],
    "ModelService/ListModels": [],
}

KINDS = {
    "execution_id": "execution",
    "parent_execution_id": "execution",
    "result_id": "result",
    "result_ids": "result",
    "image_id": "image",
    "source_image_id": "image",
    "reference_image_ids": "image",
    "workflow_id": "workflow",
    "credential_id": "credential",
    "token_id": "token",
    "user_id": "user",
    "id": "user",
    "request_id": "request",
    "page_token": "page",
}
"""What the last name of a field's path names; a name that is not here fails."""

# These make something under any name that is new to the caller, so a name that somebody else has used is new to them.
MAKES_SOMETHING = {"AccountService/CreateToken", "AccountService/CreateUser", "ExecutionService/CreateExecution"}

# What even an admin may only do with things of their own.
OWN_ONLY = {"parent_execution_id", "source_image_id", "reference_image_ids", "workflow_id"}
# Fields that nothing is looked up by: not built yet, or without meaning for a price.
NOT_LOOKED_UP = {
    "ExecutionService/CreateExecution": {"credential_id"},
    "ExecutionService/EstimateCost": {"credential_id", "parent_execution_id", "workflow_id"},
    "ExecutionService/ResumeExecution": {"credential_id"},
    "ExecutionService/RetryExecution": {"credential_id"},
}


@dataclass
class Tenant:
    """A user with one of everything; ``things`` by kind."""

    client: Client
    metadata: Metadata
    things: dict[str, list[str]] = field(default_factory=dict)


async def tenant(house: Any, name: str) -> Tenant:
    user, token = await house.user(name)
    client = await house.client(token)
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    upload = await client.upload_image(picture.getvalue())
    request = str(uuid.uuid4())
    prompts = [f"{name}'s boat", f"{name}'s [fail:blocked] ship"]
    execution = await client.create_execution(prompts, model="sandbox", references=[upload], request_id=request)
    second = await client.create_execution([f"{name}'s other"], model="sandbox")
    execution = await house.ended(client, execution.id)
    await house.ended(client, second.id)
    retry = str(uuid.uuid4())
    results = [result async for result in client.list_results(execution.id)]
    made = next(result for result in results if result.state is ResultState.COMPLETED)
    spare, made_by = await client.create_token("spare"), str(uuid.uuid4())
    await client.create_token("with a request", request_id=made_by)
    pages = []
    for path, fields in (("ListExecutions", {}), ("ListResults", {"execution_id": execution.id})):
        (answer,) = (await ask(house, f"ExecutionService/{path}", {**fields, "page_size": 1}, bearer(token))).responses
        pages.append(answer.next_page_token)
    (answer,) = (await ask(house, "AccountService/ListTokens", {"page_size": 1}, bearer(token))).responses
    pages.append(answer.next_page_token)
    assert all(pages)
    return Tenant(
        client,
        bearer(token),
        {
            "execution": [execution.id],
            "done": [second.id],
            "result": [result.id for result in results],
            "image": [upload.id, made.image_id],
            "workflow": [execution.workflow_id],
            "credential": [str(uuid.uuid4())],
            "token": [spare.token.id],
            "user": [user.id],
            "request": [request, retry, made_by],
            "page": pages,
        },
    )


METHODS = {method.name: method for method in methods()}


def request_of(method: Method, fields: dict[str, Any]) -> Message:
    from google.protobuf import json_format  # noqa: PLC0415  # only here

    fields = {**fields}
    mask = fields.pop("update_mask", None)
    request = json_format.ParseDict(fields, method.request())
    if mask is not None:
        request.update_mask.paths.extend(mask["paths"])
    return request


async def ask(house: Any, name: str, fields: dict[str, Any], metadata: Metadata) -> Outcome:
    return await call(house.channel, METHODS[name], request_of(METHODS[name], fields), metadata=metadata)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tenants(each_house) -> tuple[Any, Tenant, Tenant]:
    """A house, somebody who looks around, and somebody else."""
    return each_house, await tenant(each_house, "Ada"), await tenant(each_house, "Bo")


def fits(name: str, number: int, path: tuple[str, ...]) -> bool:
    """Whether a field is asked about in this request: in a nested message where one is filled in."""
    filled_in = [index for index, fields in enumerate(REQUESTS[name]) if len(path) > 1 and path[0] in fields]
    elsewhere = {"request_id": number > 0, "result_ids": number == 0}  # the first request is of a run without failures
    return (number in filled_in or not filled_in) and not elsewhere.get(path[-1], False)


CASES = [
    (name, number, path)
    for name, method in sorted(METHODS.items())
    for number in range(len(REQUESTS.get(name, [])))
    for path in naming_fields(method.descriptor.input_type)
    if fits(name, number, path)
]


def filled(fields: Any, who: Tenant) -> Any:
    """Return the fields with ``{kind}`` replaced by what this user has of it."""
    if isinstance(fields, dict):
        return {name: filled(value, who) for name, value in fields.items()}
    if isinstance(fields, list):
        return [filled(value, who) for value in fields]
    if isinstance(fields, str) and fields.startswith("{"):
        return who.things[fields.strip("{}")][-1 if fields == "{result}" else 0]
    return fields


def unknown(kind: str) -> str:
    """Return a good name of nothing."""
    return "AAAA" * 12 if kind == "page" else str(uuid.uuid4())


async def test_every_method_that_names_something_is_asked():
    assert set(REQUESTS) == set(METHODS)
    assert {path[-1] for method in METHODS.values() for path in naming_fields(method.descriptor.input_type)} <= set(
        KINDS
    )
    naming = {name for name, method in METHODS.items() if list(naming_fields(method.descriptor.input_type))}
    assert {name for name, requests in REQUESTS.items() if not requests} == set(METHODS) - naming


@pytest.mark.parametrize(("name", "number", "path"), CASES, ids=[f"{n}-{i}-{'.'.join(p)}" for n, i, p in CASES])
async def test_a_foreign_name_is_answered_like_an_unknown_one(tenants, name, number, path):
    house, looker, other = tenants
    method, kind = METHODS[name], KINDS[path[-1]]
    base = request_of(method, filled(REQUESTS[name][number], looker))
    before = await belongings(house, other)
    nothing = unknown(kind)
    reference = await call(house.channel, method, with_value(base, path, nothing), metadata=looker.metadata)
    for thing in other.things[kind]:
        answer = await call(house.channel, method, with_value(base, path, thing), metadata=looker.metadata)
        if name in MAKES_SOMETHING and kind == "request":
            assert_made_anew(reference, answer, other)
        else:
            assert without(answer, thing) == without(reference, nothing)
    assert await belongings(house, other) == before


CONTROLS = [
    (name, number, path)
    for name, number, path in CASES
    if KINDS[path[-1]] not in {"request", "page"} and path[-1] not in NOT_LOOKED_UP.get(name, ())
]


@pytest.mark.parametrize(("name", "number", "path"), CONTROLS, ids=[f"{n}-{i}-{'.'.join(p)}" for n, i, p in CONTROLS])
async def test_what_owners_and_admins_are_answered_shows_that_it_is_there(house, name, number, path):
    """Control: without it the test above could not tell a thing that is hidden from one that never was."""
    method, kind = METHODS[name], KINDS[path[-1]]
    ways = ["owner"] * (RULES[method.path] is not Rule.ADMIN) + ["admin"] * (path[-1] not in OWN_ONLY)
    assert ways
    for who in ways:
        owner = await tenant(house, "Cy")  # anew: what is asked may change what is there
        metadata = house.admin if who == "admin" else owner.metadata
        base = request_of(method, filled(REQUESTS[name][number], owner))
        nothing, thing = unknown(kind), owner.things[kind][-1]
        reference = await call(house.channel, method, with_value(base, path, nothing), metadata=metadata)
        assert reference.code is not grpc.StatusCode.OK
        answer = await call(house.channel, method, with_value(base, path, thing), metadata=metadata)
        assert without(answer, thing) != without(reference, nothing), who
        assert answer.reason != "INTERNAL"


async def test_lists_hold_what_is_ones_own(tenants):
    house, looker, other = tenants
    for list_, items in (("ExecutionService/ListExecutions", "executions"), ("AccountService/ListTokens", "tokens")):
        theirs, foreign = await ids(house, list_, items, looker), await ids(house, list_, items, other)
        assert theirs
        assert foreign
        assert not theirs & foreign
    everything = await ask(house, "ExecutionService/ListExecutions", {"page_size": 1000}, house.admin)
    listed = {execution.id for execution in everything.responses[0].executions}
    assert listed >= {looker.things["execution"][0], other.things["execution"][0]}


async def ids(house: Any, name: str, items: str, who: Tenant) -> set[str]:
    (response,) = (await ask(house, name, {"page_size": 1000}, who.metadata)).responses
    return {item.id for item in getattr(response, items)}


async def belongings(house: Any, who: Tenant) -> tuple[bytes, ...]:
    """Return all that a user has, as bytes."""
    execution = who.things["execution"][0]
    asked = [
        ("ExecutionService/GetExecution", {"execution_id": execution}),
        ("ExecutionService/ListResults", {"execution_id": execution}),
        ("ExecutionService/ListExecutions", {}),
        *(("ImageService/GetImage", {"image_id": image}) for image in who.things["image"]),
        ("AccountService/ListTokens", {}),
    ]
    found = []
    for name, fields in asked:
        (response,) = (await ask(house, name, fields, who.metadata)).responses
        for token in getattr(response, "tokens", ()):
            token.ClearField("last_use_time")  # which their own asking here moves
        found.append(response.SerializeToString(deterministic=True))
    return tuple(found)


def without(outcome: Outcome, asked: str) -> Outcome:
    """Return an answer without the name that was asked about, which it may repeat: they are equally long."""
    hidden = "?" * len(asked)
    return replace(
        outcome,
        message=outcome.message.replace(asked, hidden),
        details=outcome.details.replace(asked.encode(), hidden.encode()),
    )


def assert_made_anew(reference: Outcome, answer: Outcome, other: Tenant) -> None:
    """Both answers made something new of the caller's own, or both were refused in the same words."""
    assert replace(answer, responses=()) == replace(reference, responses=())
    for response in answer.responses:
        text = str(response)
        assert not any(thing in text for things in other.things.values() for thing in things)
