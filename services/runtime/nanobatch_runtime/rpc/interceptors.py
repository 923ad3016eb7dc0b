"""What every server does around every handler: deadline noted, errors made into statuses, the end told."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from nanobatch_runtime.errors import InvalidArgumentError, NanobatchError
from nanobatch_runtime.rpc import deadline
from nanobatch_runtime.rpc.served import Served
from nanobatch_runtime.rpc.status import to_proto

_log = structlog.get_logger("nanobatch.rpc")


class MalformedMessageError(InvalidArgumentError):
    """The bytes that came are no message of the method."""

    reason = "MALFORMED_MESSAGE"


Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns a :class:`NanobatchError` into its status, and anything unforeseen into INTERNAL with an incident id."""

    def __init__(self, *, public: bool = False) -> None:
        """``public``: callers are nobody of ours; each of their calls gets an id unless it brings one."""
        self._public = public

    async def intercept_service(
        self, continuation: Any, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wrap the handler of the called method, whichever of the four kinds it is."""
        Served.arrived(handler_call_details, public=self._public)
        handler: Handler | None = await continuation(handler_call_details)
        if handler is None:  # unknown method: grpc answers UNIMPLEMENTED
            return handler
        served = Served(handler_call_details, public=self._public, streams=bool(handler.response_streaming))
        codec = {
            "request_deserializer": _careful(handler.request_deserializer, in_a_stream=bool(handler.request_streaming)),
            "response_serializer": _passing_bytes(handler.response_serializer),
        }
        if handler.response_streaming:
            inner = handler.stream_stream if handler.request_streaming else handler.unary_stream
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(_streaming(inner, served), **codec)
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
        make_unary = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make_unary(_unary(inner, served), **codec)


def refusing(error: NanobatchError) -> Handler:
    """Return a handler that refuses a call of any kind; behind an :class:`ErrorInterceptor` it becomes a status."""

    # A unary handler refuses calls of all four kinds.
    async def refuse(_request: Any, _context: Any) -> NoReturn:
        raise error

    return grpc.unary_unary_rpc_method_handler(refuse)


def _careful(deserialize: Callable[[bytes], Any] | None, *, in_a_stream: bool) -> Callable[[bytes], Any] | None:
    """Return a deserializer for which bytes that are no message are the caller's mistake, not a surprise.

    Before a handler runs nobody could catch its error: there it gives back the error, and the handler raises it.
    """
    if deserialize is None:
        return None

    def careful(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            error = MalformedMessageError("The message cannot be decoded: broken bytes, or a text that is not UTF-8.")
            if in_a_stream:
                raise error from None
            return error

    return careful


def _passing_bytes(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes] | None:
    """Return a serializer that lets bytes through: what many readers are sent is serialised once."""
    if serialize is None:
        return None
    return lambda message: message if isinstance(message, bytes) else serialize(message)


def _unary(inner: Any, served: Served) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        deadline.set_remaining(context.time_remaining())
        with served:
            try:
                _require_message(request)
                served.asked(request)
                response = await inner(request, context)
                served.answered(response)
            except asyncio.CancelledError:
                raise
            except grpc.aio.AbortError:
                served.aborted(context)
                raise
            except NanobatchError as error:
                await _abort(context, served, error)
            except Exception as error:  # noqa: BLE001  # the last resort: nothing unforeseen may show a trace to a caller
                await _abort(context, served, _incident(served, error))
            else:
                return response

    return call


def _streaming(inner: Any, served: Served) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], AsyncIterator[Any]]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        deadline.set_remaining(context.time_remaining())
        with served:
            try:
                _require_message(request)
                served.asked(request)
                responses = inner(request, context)
                if inspect.isawaitable(
                    responses
                ):  # the other way to stream: it writes by itself (the health service does)
                    await responses
                    return
                async for response in responses:
                    yield response
            except (asyncio.CancelledError, GeneratorExit):
                raise
            except grpc.aio.AbortError:
                served.aborted(context)
                raise
            except NanobatchError as error:
                await _abort(context, served, error)
            except Exception as error:  # noqa: BLE001  # as above
                await _abort(context, served, _incident(served, error))

    return call


def _require_message(request: Any) -> None:
    if isinstance(request, MalformedMessageError):
        raise request


def _incident(served: Served, error: Exception) -> NanobatchError:
    incident = uuid.uuid4().hex[:12]
    _log.error("rpc.failed", method=served.path, incident=incident, exc_info=error)
    return NanobatchError(
        f"Something went wrong on our side; the server's log has it as incident {incident}.",
        metadata={"incident": incident},
    )


async def _abort(context: grpc.aio.ServicerContext[Any, Any], served: Served, error: NanobatchError) -> None:
    served.failed(error)
    await context.abort_with_status(rpc_status.to_status(to_proto(error)))
