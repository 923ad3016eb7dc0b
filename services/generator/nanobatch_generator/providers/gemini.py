"""Gemini image models through google-genai: one client, one connection pool, the key given with each call."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import httpx
from google import genai
from google.genai import errors, types

from nanobatch_generator.domain import Charged, Done, FailureClass, InputImage, KeyCheck, PictureRequest, ProviderError
from nanobatch_generator.providers.aiohttp_transport import AiohttpTransport
from nanobatch_generator.providers.gemini_answers import read_answer
from nanobatch_generator.providers.gemini_errors import http_failure
from nanobatch_generator.providers.gemini_network import network_failure, timeout_failure

DEFAULT_BASE_URL: Final = "https://generativelanguage.googleapis.com"

_CHECK_LIMIT: Final = timedelta(seconds=20)
_CONNECT_SECONDS: Final = 10.0
# The SDK's limits are per phase (a byte now and then keeps them from ever striking), so the total is ours, and theirs,
# a little longer, is only the second door. Sent to the provider as well, as X-Server-Timeout.
_SDK_GRACE: Final = timedelta(seconds=5)
_CANNED_ANSWER: Final = '{"candidates":[{"content":{"parts":[{"inlineData":{"data":"AAAA"}}]},"finishReason":"STOP"}]}'


class GeminiProvider:
    """Provider for Gemini's developer API. Holds no key; build it once per process, and close it.

    Everything that google-genai would look up in the environment is given explicitly, so that a forgotten
    ``GOOGLE_API_KEY`` or ``GOOGLE_GEMINI_BASE_URL`` neither supplies a key nor redirects a call. (HTTPS_PROXY and
    NO_PROXY are honoured: those are the operator's.)
    """

    def __init__(self, base_url: str = DEFAULT_BASE_URL, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Build client and TLS context: some 50 ms of work, for wiring time. ``transport`` replaces the network."""
        context = httpx.create_ssl_context()
        self._http = httpx.AsyncClient(
            transport=transport or AiohttpTransport(context),
            headers={"accept-encoding": "gzip, deflate"},  # what the transport undoes without further libraries
            event_hooks={"request": [_limit_connecting]},
        )
        # Never used; without it the SDK would build one of its own, with another TLS context.
        self._sync_http = httpx.Client(verify=context)
        self._client = genai.Client(
            vertexai=False,
            api_key="given-with-each-call",
            http_options=types.HttpOptions(
                base_url=base_url,
                api_version="v1beta",
                httpx_client=self._sync_http,
                httpx_async_client=self._http,
                async_client_args={"ssl": context},
            ),
        )

    async def submit(self, request: PictureRequest, key: str) -> Done:
        """See :class:`nanobatch_generator.ports.Provider`. Exactly one HTTP request, whatever happens."""
        _refuse_impossible_key(key)
        try:
            async with asyncio.timeout(request.timeout.total_seconds()):
                answer = await self._client.aio.models.generate_content(
                    model=request.model, contents=_contents(request), config=_config(request, key)
                )
        except TimeoutError:
            raise timeout_failure(request.timeout) from None
        # `from None`: the SDK's and httpx's exceptions hold request and response, and with them the key.
        except errors.APIError as error:
            raise http_failure(error, key) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise network_failure(error, key) from None
        except UnicodeDecodeError:
            raise _unreadable_error_page() from None
        body = (answer.sdk_http_response.body if answer.sdk_http_response else None) or ""
        return read_answer(body, request, key)

    async def ready(self) -> None:
        """See :class:`nanobatch_generator.ports.Provider`."""

    async def check_key(self, model: str, key: str) -> KeyCheck:
        """See :class:`nanobatch_generator.ports.Provider`. Costs nothing.

        It reads the model list; a model that is not on it is asked for by name as well, because Google serves aliases
        and models that it does not list. An empty list tells nothing of the model.
        """
        try:
            _refuse_impossible_key(key)
            async with asyncio.timeout(_CHECK_LIMIT.total_seconds()):
                listed = await self._list_models(key)
                if not listed or model.removeprefix("models/") in listed:
                    return KeyCheck(valid=True, model_available=True)
                await self._client.aio.models.get(
                    model=model, config=types.GetModelConfig(http_options=_http_options(key, _CHECK_LIMIT))
                )
        except TimeoutError:
            raise _cannot_tell(timeout_failure(_CHECK_LIMIT)) from None
        except ProviderError as failure:
            return _verdict(failure)
        except errors.APIError as error:
            return _verdict(http_failure(error, key))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _cannot_tell(network_failure(error, key)) from None
        except ValueError:  # junk in a 200, or an error page that is no text
            raise _unreadable_error_page() from None
        return KeyCheck(valid=True, model_available=True)

    async def _list_models(self, key: str) -> set[str]:
        """Return the ids of the models that the provider lists for the key."""
        config = types.ListModelsConfig(page_size=1000, http_options=_http_options(key, _CHECK_LIMIT))
        pages = await self._client.aio.models.list(config=config)
        return {model.name.removeprefix("models/") async for model in pages if model.name}

    async def warm_up(self) -> None:
        """Build what the SDK builds lazily at its first call (60 ms), in a thread, with a canned answer."""

        def rehearse() -> None:
            asyncio.run(_rehearse())

        await asyncio.to_thread(rehearse)

    async def aclose(self) -> None:
        """Close the connections; the SDK never closes clients that it was given."""
        await self._client.aio.aclose()
        self._client.close()
        await self._http.aclose()
        self._sync_http.close()


def _contents(request: PictureRequest) -> list[types.Content | types.ContentUnion]:
    # One user turn, never a model turn: those would need the thought signatures of earlier answers.
    pictures = [_picture_part(image) for image in request.input_images]
    return [types.Content(role="user", parts=[types.Part(text=request.prompt), *pictures])]


def _picture_part(image: InputImage) -> types.Part:
    return types.Part(inline_data=types.Blob(data=image.data, mime_type=image.mime_type))


def _config(request: PictureRequest, key: str) -> types.GenerateContentConfig:
    image = None
    if request.aspect_ratio or request.image_size:
        image = types.ImageConfig(
            aspect_ratio=request.aspect_ratio or None,
            image_size=request.image_size or None,
        )
    return types.GenerateContentConfig(
        # Text is worth asking for: when no picture comes, it is often the only explanation.
        response_modalities=["TEXT", "IMAGE"],
        image_config=image,
        seed=request.seed,
        max_output_tokens=request.max_output_tokens or None,
        # Both would send further requests, each of them paid, behind the ledger's back.
        automatic_continuation=False,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        # The raw body: read here it takes the loop 2 ms for a picture of 1.5 MB, 12 ms for one of 8 MB (a thread would
        # not help: the GIL is held meanwhile), and fails on nothing that we can live with, like a null for a list.
        should_return_http_response=True,
        http_options=_http_options(key, request.timeout + _SDK_GRACE),
    )


def _http_options(key: str, timeout: timedelta) -> types.HttpOptions:
    # No retry_options: exactly one request. The SDK's timeout counts in milliseconds.
    return types.HttpOptions(headers={"x-goog-api-key": key}, timeout=int(timeout.total_seconds() * 1000))


async def _limit_connecting(request: httpx.Request) -> None:
    # The SDK sets one figure for all phases. A provider that cannot be reached should be known by its connect error,
    # which costs nothing, before the call's own time is over, which might have cost something.
    limits = request.extensions["timeout"]
    limits["connect"] = min(limits["connect"] or _CONNECT_SECONDS, _CONNECT_SECONDS)


def _refuse_impossible_key(key: str) -> None:
    # httpx could not even write it as a header.
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ProviderError(
            FailureClass.KEY_INVALID,
            "API_KEY_INVALID",
            "This cannot be a Gemini key: it is empty, or holds spaces or other characters that no key has. "
            "Copy it once more from https://aistudio.google.com/apikey.",
        )


def _verdict(failure: ProviderError) -> KeyCheck:
    if failure.failure_class in {FailureClass.KEY_INVALID, FailureClass.KEY_UNUSABLE, FailureClass.BAD_REQUEST}:
        return KeyCheck(valid=False, model_available=False, message=failure.message)
    if failure.failure_class is FailureClass.MODEL_GONE:
        return KeyCheck(valid=True, model_available=False, message=failure.message)
    raise _cannot_tell(failure) from None


def _cannot_tell(failure: ProviderError) -> ProviderError:
    """Make a failure of the free check: it costs nothing, so whatever is no wait is worth another try."""
    kind = failure.failure_class
    if kind is FailureClass.QUOTA_DAY:
        kind = FailureClass.RATE_LIMITED  # the quota of looking models up is not that of making pictures
    return ProviderError(
        kind if kind in {FailureClass.RATE_LIMITED, FailureClass.OVERLOADED} else FailureClass.TRANSIENT,
        failure.code,
        f"The key could not be checked. {failure.message}",
        retry_after=failure.retry_after,
        provider_status=failure.provider_status,
    )


def _unreadable_error_page() -> ProviderError:
    return ProviderError(
        FailureClass.TRANSIENT,
        "PROVIDER_ERROR",
        "Gemini, or a proxy before it, answered with an error page that is no readable text. Trying again may help.",
        charged=Charged.NO,
    )


async def _rehearse() -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=_CANNED_ANSWER)

    provider = GeminiProvider(transport=httpx.MockTransport(answer))
    try:
        await provider.submit(
            PictureRequest(
                model="gemini-2.5-flash-image",
                prompt="warm up",
                timeout=timedelta(seconds=10),
                input_images=(InputImage("image/png", b"\0"),),
                aspect_ratio="1:1",
            ),
            "warm-up",
        )
    finally:
        await provider.aclose()
