"""The table of repeats is held to the contracts."""

from __future__ import annotations

import json

from nanobatch.generator.v1 import generator_service_pb2
from nanobatch.storage.v1 import (
    account_service_pb2,
    analytics_service_pb2,
    execution_service_pb2,
    hint_service_pb2,
    image_service_pb2,
    lease_service_pb2,
)
from nanobatch_runtime.rpc.options import channel, server
from nanobatch_runtime.rpc.repeats import REPEATS, Repeat, service_config

INTERNAL = (
    generator_service_pb2,
    account_service_pb2,
    analytics_service_pb2,
    execution_service_pb2,
    hint_service_pb2,
    image_service_pb2,
    lease_service_pb2,
)


def methods():
    return {
        service.full_name: {method.name: method for method in service.methods}
        for module in INTERNAL
        for service in module.DESCRIPTOR.services_by_name.values()
    }


def test_every_internal_method_is_decided_on_and_no_other_stands_in_the_table():
    assert {service: set(names) for service, names in REPEATS.items()} == {
        service: set(found) for service, found in methods().items()
    }


def test_what_is_made_again_by_its_key_carries_one():
    for service, found in methods().items():
        for name, repeat in REPEATS[service].items():
            if repeat is Repeat.KEYED:
                fields = set(found[name].input_type.fields_by_name)
                assert fields & {"request_id", "lease", "leases"}, name


def test_no_call_that_sends_a_stream_is_made_again():
    sends_a_stream = [
        (service, name) for service, found in methods().items() for name in found if found[name].client_streaming
    ]
    assert sends_a_stream
    assert not any(REPEATS[service][name].safe for service, name in sends_a_stream)


def test_the_service_config_repeats_safe_calls_alone_and_only_where_nothing_answered():
    config = json.loads(service_config())
    [made_again] = config["methodConfig"]
    named = {(entry["service"], entry["method"]) for entry in made_again["name"]}
    safe = {(service, name) for service, found in REPEATS.items() for name, repeat in found.items() if repeat.safe}
    assert named == safe
    assert made_again["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]
    assert 1 < made_again["retryPolicy"]["maxAttempts"] <= 5  # gRPC's own bound
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]


def test_unix_sockets_are_left_alone():
    plain = dict(channel("unix:/tmp/socket"))
    assert "grpc.service_config" not in plain
    assert "grpc.service_config" in dict(channel("dns:///storage:50053"))
    ages = [key for key, _ in server("unix:/tmp/socket", connection_age=None, longest_stream=None) if "_age" in key]
    assert ages == []
