"""A fake Gemini on loopback, strict where the real one is, whose ledger is the truth of a test or a benchmark.

In a test::

    async with FakeGemini() as fake:
        provider = GeminiProvider(fake.url)
        ...
        assert [call.status for call in fake.calls] == [200]

or from a shell, until SIGTERM (its first line on stdout is the address)::

    python tests/fakes/gemini.py --port 0 --picture-bytes 500000 --latency lognormal:0.5:0.5 --seed 1 --ledger calls.jsonl

Faults are told by markers in the prompt, ``{{fault:503x2}}`` (names: ``gemini_faults.py``) and ``{{latency:0.5}}``, or by
``script``, a function from the call to a fault's name or None.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import math
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil
from aiohttp import web

if __package__ in {None, ""}:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fakes import gemini_faults as faults
from fakes.gemini_quota import Quotas, read_quota
from fakes.gemini_wire import (
    MODELS,
    RATIOS,
    Call,
    RefusedError,
    Wanted,
    invalid,
    model_card,
    read_config,
    read_contents,
    usage_of,
)
from fakes.pictures import noise_jpeg, noise_png

_MARKER = re.compile(r"\{\{fault:([a-z0-9-]+?)(?:x(\d+))?\}\}")
_LATENCY = re.compile(r"\{\{latency:(\d+(?:\.\d+)?)\}\}")
_MIB = 1024 * 1024


Script = Callable[[Call], "str | None"]


class FakeGemini:
    """The server. ``calls`` are the generate requests in order of arrival, ``checks`` the keys of model look-ups."""

    def __init__(
        self,
        *,
        port: int = 0,
        picture_bytes: int = 500_000,
        latency: float | Callable[[Call], float] = 0.0,
        script: Script | None = None,
        ledger: IO[str] | None = None,
        max_request_bytes: int = 20 * _MIB,
        pixels: tuple[int, int] | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        """``ledger``: a file that gets a line of JSON as each call ends; ``pixels`` of every picture, whatever is asked for.

        ``quotas``: what keys may do, told to nobody. Whoever is told an address with a name behind it (``url/name``) has
        its calls written down under that name.
        """
        self.calls: list[Call] = []
        self.checks: list[str] = []
        self.models = dict(MODELS)
        self.bad_keys = {"bad-key"}
        self.leaked_keys = {"leaked-key"}
        self.free_keys = {"free-key"}
        """Known keys without any quota for pictures: the look-up succeeds, generating is a 429 with ``limit: 0``."""
        self.check_fault = ""
        """Name of an error that every model look-up is answered with."""
        self.in_flight = 0
        self.out: Counter[str] = Counter()
        """Calls in flight by caller; also to be read at ``/out``."""
        self.most_in_flight = 0
        self.script = script
        self.quotas = quotas
        self._port = port
        self._picture_bytes = picture_bytes
        self._latency = latency
        self._ledger = ledger
        self._max_request_bytes = max_request_bytes
        self._pixels = pixels
        self._by_prompt: Counter[str] = Counter()
        self._pictures: dict[tuple[int, int, bool], bytes] = {}
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=4 * self._max_request_bytes)
        for caller in ("", "/{caller}"):
            app.router.add_post(caller + "/{version:v1|v1beta}/models/{call}", self._generate)
            app.router.add_get(caller + "/{version:v1|v1beta}/models", self._list_models)
            app.router.add_get(caller + "/{version:v1|v1beta}/models/{model}", self._get_model)
        app.router.add_get("/out", self._out)
        self.picture("1:1")  # built now, not in the first call
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def picture(self, ratio: str = "1:1", *, jpeg: bool = False) -> bytes:
        """Return the picture that is served for a ratio."""
        return base64.b64decode(self._picture64(RATIOS[ratio], jpeg=jpeg))

    def prompts(self) -> Counter[str]:
        """Count the calls by prompt."""
        return Counter(call.prompt for call in self.calls)

    def served_usage(self) -> dict[str, int]:
        """Sum up the bill: prompt, total and image tokens of all calls."""
        bills = [call.usage for call in self.calls if call.usage is not None]
        return {
            "prompt": sum(bill["promptTokenCount"] for bill in bills),
            "total": sum(bill["totalTokenCount"] for bill in bills),
            "image": sum(
                detail["tokenCount"]
                for bill in bills
                for detail in bill.get("candidatesTokensDetails", [])
                if detail["modality"] == "IMAGE"
            ),
        }

    async def _out(self, request: web.Request) -> web.Response:
        return web.json_response(+self.out)

    # -- looking models up -----------------------------------------------------------------------------------------

    async def _list_models(self, request: web.Request) -> web.Response:
        return self._look_up(request, lambda: {"models": [model_card(name) for name in self.models]})

    async def _get_model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]

        def card() -> dict[str, Any]:
            if name not in self.models:
                raise RefusedError(404, faults.model_gone(name))
            return model_card(name)

        return self._look_up(request, card)

    def _look_up(self, request: web.Request, answer: Callable[[], dict[str, Any]]) -> web.Response:
        key = _key_of(request)
        self.checks.append(key)
        if self.check_fault in faults.RAW:
            return web.Response(text=faults.RAW[self.check_fault], content_type="application/json")
        if self.check_fault:
            return _error_response(self.check_fault)
        try:
            self._check_key(key)
            return web.json_response(answer())
        except RefusedError as refused:
            return web.json_response(refused.body, status=refused.code)

    def _check_key(self, key: str) -> None:
        if not key:
            raise RefusedError(
                403,
                faults.envelope(
                    403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers. Please use API Key."
                ),
            )
        if key in self.bad_keys:
            raise RefusedError(400, faults.bad_key())
        if key in self.leaked_keys:
            raise RefusedError(403, faults.leaked())

    # -- generating ------------------------------------------------------------------------------------------------

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        call = Call(len(self.calls), time.monotonic(), request.path, _key_of(request), headers=_headers(request))
        call.caller = request.match_info.get("caller", "")
        self.calls.append(call)
        self.in_flight += 1
        self.out[call.caller] += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(request, call)
        except RefusedError as refused:
            call.status = refused.code
            call.finished = True
            return web.json_response(refused.body, status=refused.code)
        finally:
            self.in_flight -= 1
            self.out[call.caller] -= 1
            call.ended = time.monotonic()
            if self._ledger is not None:
                self._ledger.write(call.line() + "\n")
                self._ledger.flush()

    async def _answer(self, request: web.Request, call: Call) -> web.StreamResponse:
        call.model, _, method = request.match_info["call"].partition(":")
        if method != "generateContent":
            raise RefusedError(404, faults.envelope(404, "NOT_FOUND", "Method not found."))
        raw = await request.read()
        if len(raw) > self._max_request_bytes:
            raise invalid(f"Request payload size exceeds the limit: {self._max_request_bytes} bytes.")
        self._check_key(call.key)
        if call.model not in self.models:
            raise RefusedError(404, faults.model_gone(call.model))
        try:
            call.body = json.loads(raw)
        except ValueError:
            raise invalid("Invalid JSON payload received.") from None
        read_contents(call)
        wanted = read_config(call, self.models[call.model])
        refusal = None if self.quotas is None else self.quotas.refusal(call.key)
        if refusal is not None:
            call.fault = "quota"
            raise RefusedError(429, refusal)
        latency = self._latency(call) if callable(self._latency) else self._latency
        marked = _LATENCY.search(call.prompt)
        call.latency = float(marked[1]) if marked else latency
        call.fault = self._fault(call)
        if call.latency:
            await asyncio.sleep(call.latency)
        if not call.fault and wanted.output_limit and wanted.output_limit < wanted.image_tokens:
            call.fault = "max-tokens"
        return await self._serve(request, call, wanted)

    def _fault(self, call: Call) -> str:
        told = self.script(call) if self.script is not None else None
        if told is not None:
            return told
        if call.key in self.free_keys:
            return "429-zero"
        marker = _MARKER.search(call.prompt)
        if marker is None:
            return ""
        before = self._by_prompt[call.prompt]
        self._by_prompt[call.prompt] += 1
        name = marker[1]
        if name not in faults.known():
            raise invalid(f"The fake knows no fault {name}.")
        return name if marker[2] is None or before < int(marker[2]) else ""

    async def _serve(self, request: web.Request, call: Call, wanted: Wanted) -> web.StreamResponse:
        name = call.fault.removesuffix("-unmetered")
        if name in faults.ERRORS:
            call.status = faults.ERRORS[name][0]
            call.finished = True
            return _error_response(name)
        if name in faults.RAW:
            body = faults.RAW[name].encode()
        elif name in faults.EMPTIES:
            usage = None if call.fault != name or name == "image-other" else usage_of(call, 0, text=12)
            answer = faults.EMPTIES[name] | ({"usageMetadata": usage} if usage else {})
            call.usage = usage
            body = json.dumps(answer).encode()
        else:
            body = self._picture_body(call, wanted)
        if name == "kill":
            call.finished = await asyncio.to_thread(_kill_caller, request)
        if name in faults.NETWORK:
            return await _spoil(request, name, body)
        call.status = 200
        response = web.Response(body=body, content_type="application/json")
        await response.prepare(request)
        await response.write_eof()
        call.finished = True
        return response

    def _picture_body(self, call: Call, wanted: Wanted) -> bytes:
        data, mime = self._picture64(wanted.pixels, jpeg=wanted.jpeg), "image/jpeg" if wanted.jpeg else "image/png"
        name = call.fault.removesuffix("-unmetered")
        usage: dict[str, Any] | None = usage_of(call, wanted.image_tokens, text=0 if name == "" else 5)
        if usage is not None and name == "no-details":
            del usage["candidatesTokensDetails"]
        if usage is not None and name == "thinking-usage":
            # More candidates than its details, thoughts unreported: only the total is right.
            usage["candidatesTokenCount"] += 88
            usage["totalTokenCount"] += 300
        call.usage = usage
        if name == "no-usage" or call.fault != name:
            usage = None
        tail = (
            "" if usage is None else f',"usageMetadata":{json.dumps(usage)}'
        ) + f',"modelVersion":"{call.model}","responseId":"fake-{call.number}"}}'
        if name in faults.PICTURES:
            parts = json.dumps(faults.PICTURES[name](data.decode(), mime)).encode()
        else:
            parts = b'[{"inlineData":{"mimeType":"' + mime.encode() + b'","data":"' + data + b'"}}]'
        return b"".join(
            (
                b'{"candidates":[{"content":{"role":"model","parts":',
                parts,
                b'},"finishReason":"STOP","index":0}]',
                tail.encode(),
            )
        )

    def _picture64(self, pixels: tuple[int, int], *, jpeg: bool) -> bytes:
        pixels = self._pixels or pixels
        slot = (*pixels, jpeg)
        if slot not in self._pictures:
            picture = noise_jpeg(pixels) if jpeg else noise_png(self._picture_bytes, pixels)
            self._pictures[slot] = base64.b64encode(picture)
        return self._pictures[slot]


def _key_of(request: web.Request) -> str:
    return request.headers.get("x-goog-api-key") or request.query.get("key", "")


def _headers(request: web.Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _error_response(name: str) -> web.Response:
    code, body, headers = faults.ERRORS[name]
    data, content_type = faults.error_body(body)
    return web.Response(body=data, status=code, content_type=content_type, headers=headers)


async def _spoil(request: web.Request, name: str, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    if name in {"cut", "stall"}:
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
    if name in {"hang", "stall"}:
        await asyncio.Event().wait()  # until the client leaves, which cancels this handler
    if request.transport is not None:
        if name == "reset":
            request.transport.abort()
        else:
            request.transport.close()
    return response


def _kill_caller(request: web.Request) -> bool:
    """End the process at the other end of the connection, as a prompt that is poison to it would; says whether it did."""
    here = request.transport.get_extra_info("peername") if request.transport is not None else None
    found = [one.pid for one in psutil.net_connections("tcp") if here and one.laddr == tuple(here[:2]) and one.pid]
    if os.getpid() in found:
        raise RuntimeError("The caller is this very process: run the fake as one of its own.")
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


# -- from a shell ------------------------------------------------------------------------------------------------------


def latency_of(spec: str, seed: int) -> float | Callable[[Call], float]:
    """Read ``0.5``, ``uniform:0.1:0.9`` or ``lognormal:MEDIAN:SIGMA``; drawn in order of arrival."""
    kind, *numbers = spec.split(":")
    if not numbers:
        return float(kind)
    source, first, second = random.Random(seed), float(numbers[0]), float(numbers[1])
    if kind == "uniform":
        return lambda _call: source.uniform(first, second)
    if kind == "lognormal":
        return lambda _call: source.lognormvariate(math.log(first), second)
    raise argparse.ArgumentTypeError(spec)


async def _main() -> None:
    parser = argparse.ArgumentParser(description="A fake Gemini on loopback.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--picture-bytes", type=int, default=500_000)
    parser.add_argument("--pixels", type=int, help="edge of every picture")
    parser.add_argument("--latency", default="0")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ledger", type=Path)
    parser.add_argument("--quota", help="bucket:RATE:BURST or window:CALLS:SECONDS:OFFSET, of each key")
    parser.add_argument("--quota-of", default="", help="the one key that has the quota")
    parser.add_argument("--no-hint", action="store_true", help="refuse without saying how long to wait")
    arguments = parser.parse_args()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    ledger = arguments.ledger.open("w") if arguments.ledger else None
    quotas = None
    if arguments.quota:
        quotas = Quotas(lambda: read_quota(arguments.quota), hint=not arguments.no_hint, only=arguments.quota_of)
    try:
        fake = FakeGemini(
            port=arguments.port,
            picture_bytes=arguments.picture_bytes,
            pixels=(arguments.pixels, arguments.pixels) if arguments.pixels else None,
            latency=latency_of(arguments.latency, arguments.seed),
            ledger=ledger,
            quotas=quotas,
        )
        async with fake:
            sys.stdout.write(f"{fake.url}\n")
            sys.stdout.flush()
            await stop.wait()
    finally:
        if ledger is not None:
            ledger.close()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main())
