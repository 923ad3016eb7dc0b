"""Executions, images and accounts: protobuf to domain and back. Lease messages: ``translate_leases``."""

from __future__ import annotations

from datetime import datetime, timedelta

from google.protobuf import duration_pb2, timestamp_pb2
from nanobatch.gateway.v1 import execution_pb2, image_pb2
from nanobatch.gateway.v1.execution_service_pb2 import WatchExecutionResponse
from nanobatch.storage.v1 import common_pb2, execution_service_pb2, lease_service_pb2
from nanobatch_runtime.clock import EPOCH
from nanobatch_runtime.errors import FieldViolation, InvalidArgumentError

from nanobatch_storage.domain import (
    Actor,
    EncryptedKey,
    Execution,
    Image,
    ImageKind,
    NewCredential,
    NewExecution,
    NewPrompt,
    OutputOptions,
    Result,
    ResultState,
    Settings,
    UnknownPolicy,
    Waiting,
)
from nanobatch_storage.pictures import blob_path
from nanobatch_storage.views import Change, ResultView, Retry, WaitingNotice

_MILLISECOND = timedelta(milliseconds=1)
