"""What the gateway believes about the contract is what the contract says."""

from __future__ import annotations

import importlib
import pkgutil
from datetime import timedelta
from types import ModuleType

import pytest
from google.protobuf import duration_pb2

from nanobatch.gateway.v1 import account_pb2, execution_pb2, image_pb2, usage_pb2
from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch_gateway import translate
from nanobatch_gateway.accounts import LAST_ROLE
from nanobatch_gateway.auth import RULES, Rule, current_caller
from nanobatch_gateway.domain import Mode, UnknownPolicy, UploadKind
from nanobatch_gateway.pages import LAST_STATE
from nanobatch_gateway.usage import GROUPINGS
from nanobatch_gateway.wiring import SERVICE_NAMES
from nanobatch_runtime.errors import UnauthenticatedError


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (Mode, execution_pb2.ExecutionMode, "EXECUTION_MODE_"),
        (UnknownPolicy, execution_pb2.UnknownPolicy, "UNKNOWN_POLICY_"),
    ],
)
def test_enums_have_the_numbers_of_the_contract(ours, theirs, prefix: str) -> None:
    assert {prefix + member.name: member.value for member in ours} == dict(theirs.items())


def test_upload_kinds_and_result_states_have_the_numbers_of_the_contract() -> None:
    assert UploadKind.REFERENCE == image_pb2.IMAGE_KIND_REFERENCE
    assert UploadKind.SOURCE == image_pb2.IMAGE_KIND_SOURCE
    assert max(execution_pb2.ResultState.values()) == LAST_STATE
    assert max(account_pb2.Role.values()) == LAST_ROLE
    assert set(usage_pb2.UsageGrouping.values()) == {0, *GROUPINGS}


def test_every_method_of_the_contract_has_a_rule_and_none_is_open() -> None:
    services = [service for name in modules() for service in name.DESCRIPTOR.services_by_name.values()]
    methods = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    ours = {method for method in RULES if method.startswith("/nanobatch.")}
    assert ours == methods
    assert {service.full_name for service in services} == set(SERVICE_NAMES)
    assert {method for method in RULES if RULES[method] is Rule.OPEN} == {
        f"/grpc.health.v1.Health/{name}" for name in ("Check", "Watch")
    }
    assert {method.rpartition("/")[2] for method in RULES if RULES[method] is Rule.ADMIN} == {
        "CreateUser",
        "GetServerStats",
        "ListUsers",
        "UpdateUser",
    }


def modules() -> list[ModuleType]:
    """Return every module of services in the public contract, found by its file."""
    package = importlib.import_module("nanobatch.gateway.v1")
    names = [each.name for each in pkgutil.iter_modules(package.__path__) if each.name.endswith("_service_pb2")]
    return [importlib.import_module(f"nanobatch.gateway.v1.{name}") for name in names]


def test_nobody_is_let_in_by_default() -> None:
    with pytest.raises(UnauthenticatedError):
        current_caller()


def test_what_was_left_out_is_told_from_what_is_zero() -> None:
    empty = translate.execution_draft(pb.CreateExecutionRequest())
    assert (empty.variations, empty.seed, empty.max_cost_micros, empty.timeout) == (None, None, None, None)
    assert (empty.api_key, empty.credential_id) == (None, None)
    zero = translate.execution_draft(
        pb.CreateExecutionRequest(
            variations=0, seed=0, max_cost_micros=0, max_attempts=0, timeout=duration_pb2.Duration(), credential_id=""
        )
    )
    assert (zero.variations, zero.seed, zero.max_cost_micros, zero.max_attempts) == (0, 0, 0, 0)
    assert zero.timeout == timedelta(0)
    assert zero.credential_id == ""


@pytest.mark.parametrize("seconds", [2**63 - 1, -(2**63)])
def test_durations_that_python_cannot_hold_are_only_out_of_range(seconds: int) -> None:
    draft = translate.execution_draft(pb.CreateExecutionRequest(timeout=duration_pb2.Duration(seconds=seconds)))
    assert draft.timeout is not None
    assert abs(draft.timeout) > timedelta(days=10_000)
