"""The public contract as its descriptors tell it: every method, every field that names something, and raw calls."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Method:
    """One method: ``name`` is ``Service/Method``, ``path`` what goes over the wire."""

    descriptor: MethodDescriptor

    @property
    def name(self) -> str:
        return f"{self.descriptor.containing_service.name}/{self.descriptor.name}"

    @property
    def path(self) -> str:
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def request(self) -> type[Message]:
        return GetMessageClass(self.descriptor.input_type)


def services(package: str = "nanobatch.gateway.v1") -> list[ServiceDescriptor]:
    """Return every service of a package, found by its files."""
    folder = importlib.import_module(package)
    names = [each.name for each in pkgutil.iter_modules(folder.__path__) if each.name.endswith("_service_pb2")]
    modules = [importlib.import_module(f"{package}.{name}") for name in sorted(names)]
    return [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]


def methods(package: str = "nanobatch.gateway.v1") -> list[Method]:
    """Return every method of a package."""
    return [Method(method) for service in services(package) for method in service.methods]


def naming_fields(message: Descriptor, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Iterate over the paths of all fields that name something: ids, lists of ids, page tokens."""
    for field in message.fields:
        path = (*before, field.name)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if not field.message_type.full_name.startswith("google.protobuf."):
                yield from naming_fields(field.message_type, path)
        elif field.type == FieldDescriptor.TYPE_STRING and (
            field.name in {"id", "page_token"} or field.name.endswith(("_id", "_ids"))
        ):
            yield path


def with_value(request: Message, path: tuple[str, ...], value: str) -> Message:
    """Return a copy with one field set; a list gets it as its only item, a list of messages in its first one."""
    copy = type(request)()
    copy.CopyFrom(request)
    inner: Any = copy
    for name in path[:-1]:
        inner = getattr(inner, name)
        if not isinstance(inner, Message):
            if not inner:
                inner.add()
            inner = inner[0]
    if isinstance(getattr(inner, path[-1]), str):
        setattr(inner, path[-1], value)
    else:
        inner.ClearField(path[-1])
        getattr(inner, path[-1]).append(value)
    return copy


@dataclass(frozen=True)
class Outcome:
    """How a call ended: status, sentence and raw details, as they came; ``responses`` where it did well."""

    code: grpc.StatusCode
    message: str = ""
    details: bytes = b""
    reason: str = ""
    responses: tuple[Message, ...] = ()


async def call(
    channel: grpc.aio.Channel, method: Method, *requests: Message | bytes, metadata: Metadata = (), path: str = ""
) -> Outcome:
    """Make a call of any of the four kinds, with nothing but the descriptor."""
    kind = ("stream" if method.descriptor.client_streaming else "unary") + (
        "_stream" if method.descriptor.server_streaming else "_unary"
    )
    start = getattr(channel, kind)(
        path or method.path,
        request_serializer=lambda request: request if isinstance(request, bytes) else request.SerializeToString(),
        response_deserializer=GetMessageClass(method.descriptor.output_type).FromString,
    )

    async def several():
        for request in requests:
            yield request

    going = start(
        several() if method.descriptor.client_streaming else requests[0], metadata=tuple(metadata), timeout=20
    )
    try:
        if method.descriptor.server_streaming:
            return Outcome(grpc.StatusCode.OK, responses=tuple([response async for response in going]))
        return Outcome(grpc.StatusCode.OK, responses=(await going,))
    except grpc.aio.AioRpcError as error:
        return outcome_of(error)


def outcome_of(error: grpc.aio.AioRpcError) -> Outcome:
    """Return how a call failed."""
    from google.rpc import error_details_pb2, status_pb2  # noqa: PLC0415  # untyped, and wanted here only

    details = next((value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin"), b"")
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(details).details:
        detail.Unpack(info)
    return Outcome(error.code(), error.details() or "", details, info.reason)


def bearer(token: str) -> Metadata:
    """Return what a call with a token carries."""
    return (("authorization", f"Bearer {token}"),)
