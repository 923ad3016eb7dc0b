"""Which internal calls a channel may make again, and how: the one table, from which the gRPC service config is made.

A call that was cut may have been carried out. It is made again only where that cannot do harm: it reads, it brings about
a state and finds it brought about, or the other side knows a repeat by its key. Only UNAVAILABLE is repeated, and CANCELLED,
which is gRPC's answer to calls that a server which ends has not looked at yet; a few times within about a second: enough to
reach another replica. Outlasting an outage is the callers' business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any


class Repeat(Enum):
    """Whether a call may be made again, and why."""

    READ = "it changes nothing"
    STATE = "it brings about a state, and finds it brought about"
    KEYED = "a repeat is known by its key: request id, lease or attempt"
    NO_STREAM = "a stream's caller goes on where it was, and does so by itself"
    NO_QUEUE = "what a lost answer leased is nobody's until the lease ends; the caller asks again anyway"
    NO_CHANGE = "a repeat may come after somebody else's change, or be answered as if it had failed"

    @property
    def safe(self) -> bool:
        """Whether it may."""
        return self in {Repeat.READ, Repeat.STATE, Repeat.KEYED}


REPEATS: Mapping[str, Mapping[str, Repeat]] = {
    "nanobatch.generator.v1.GeneratorService": {
        "CheckApiKey": Repeat.READ,
        "WatchProgress": Repeat.NO_STREAM,
    },
    "nanobatch.storage.v1.AccountService": {
        "Authenticate": Repeat.READ,
        "GetAccount": Repeat.READ,
        "ListTokens": Repeat.READ,
        "ListUsers": Repeat.READ,
        "EnsureFirstAdmin": Repeat.STATE,
        "EnsureSecret": Repeat.STATE,
        "EnsureUser": Repeat.STATE,
        "RevokeToken": Repeat.STATE,
        "CreateToken": Repeat.NO_CHANGE,
        "CreateUser": Repeat.NO_CHANGE,
        "UpdateUser": Repeat.NO_CHANGE,
    },
    "nanobatch.storage.v1.AnalyticsService": {
        "GetServerStats": Repeat.READ,
        "GetUsage": Repeat.READ,
    },
    "nanobatch.storage.v1.HintService": {
        "DescribeHints": Repeat.READ,
    },
    "nanobatch.storage.v1.ExecutionService": {
        "GetExecution": Repeat.READ,
        "GetLatency": Repeat.READ,
        "GetResult": Repeat.READ,
        "ListExecutions": Repeat.READ,
        "ListResults": Repeat.READ,
        # These two can only stop spending, and the user is waiting for just that.
        "CancelExecution": Repeat.STATE,
        "PauseExecution": Repeat.STATE,
        "CreateExecution": Repeat.KEYED,
        "RetryExecution": Repeat.KEYED,
        "DeleteExecution": Repeat.NO_CHANGE,
        "ResumeExecution": Repeat.NO_CHANGE,
        "WatchChanges": Repeat.NO_STREAM,
    },
    "nanobatch.storage.v1.ImageService": {
        "BatchGetImages": Repeat.READ,
        "ReadImage": Repeat.READ,  # gRPC repeats a stream only before its first message
        "PutImage": Repeat.NO_STREAM,
    },
    "nanobatch.storage.v1.LeaseService": {
        "ConfirmKey": Repeat.STATE,
        "EndCall": Repeat.KEYED,
        "ExtendLeases": Repeat.KEYED,
        "FailResult": Repeat.KEYED,
        "NoteJob": Repeat.KEYED,
        "ReleaseLeases": Repeat.KEYED,
        "StartAttempt": Repeat.KEYED,
        "CompleteResult": Repeat.NO_STREAM,
        "LeaseResults": Repeat.NO_QUEUE,
    },
}
"""By service and method. A test holds it to the contracts: a new method is decided on here."""

_POLICY: Mapping[str, Any] = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}


def service_config() -> str:
    """Return the channel's service config: calls spread over all addresses, safe ones repeated."""
    names = [
        {"service": service, "method": method}
        for service, methods in REPEATS.items()
        for method, repeat in methods.items()
        if repeat.safe
    ]
    return json.dumps(
        {"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [{"name": names, "retryPolicy": _POLICY}]}
    )
