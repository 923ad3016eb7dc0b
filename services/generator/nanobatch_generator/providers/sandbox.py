"""The sandbox: free, without a key, without a network. Draws a labelled picture, and fails when the prompt tells it to.

The switches are described in ``docs/sandbox.md``.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from datetime import timedelta

from nanobatch_generator.domain import (
    Accepted,
    Charged,
    Done,
    FailureClass,
    KeyCheck,
    PictureRequest,
    ProviderError,
    Usage,
)
from nanobatch_generator.providers.sandbox_switches import Fault, read_switches, words_of
from nanobatch_runtime.ids import new_id

DEFAULT_DELAY = timedelta(seconds=0.5)
_POLL_AFTER = timedelta(seconds=0.25)


class SandboxProvider:
    """Provider that draws by itself. Same prompt, ratio, seed and input pictures: same bytes, on every replica.

    It keeps no state: which call of a result this is comes with the request, so that a failure told to happen twice
    happens twice whatever is restarted or scaled meanwhile.
    """

    def __init__(self, delay: timedelta = DEFAULT_DELAY, *, may_crash: bool = False) -> None:
        """``delay`` is how long calls take on average; each prompt has its own, 0.5 to 1.5 of it.

        ``may_crash`` honours ``[crash]``, which kills this process: for tests of what survives it.
        """
        self._delay = delay
        self._may_crash = may_crash

    async def submit(
        self,
        request: PictureRequest,
        key: str,  # noqa: ARG002 - part of the port; none is needed
    ) -> Done | Accepted:
        """See :class:`nanobatch_generator.ports.Provider`."""
        fingerprint = _fingerprint(request)
        switches = read_switches(request.prompt)
        if switches.unknown:
            raise ProviderError(
                FailureClass.BAD_REQUEST,
                "INVALID_REQUEST",
                f"The sandbox knows no [fail:{switches.unknown}]. Its switches stand in docs/sandbox.md.",
            )
        if switches.crash and not self._may_crash:
            raise ProviderError(
                FailureClass.BAD_REQUEST,
                "INVALID_REQUEST",
                "[crash] ends the process that makes the call; it needs NANOBATCH_SANDBOX_CRASH=1.",
            )
        fault = switches.fault(request.attempts)
        delay = switches.delay if switches.delay is not None else self._delay * (0.5 + fingerprint[0] / 255)
        try:
            async with asyncio.timeout(request.timeout.total_seconds()):
                await asyncio.sleep(delay.total_seconds())
        except TimeoutError:
            raise ProviderError(
                FailureClass.UNKNOWN,
                "CALL_TIMED_OUT",
                f"The sandbox did not answer within {request.timeout.total_seconds():g} s.",
                charged=Charged.MAYBE,
                provider_status="deadline",
            ) from None
        if switches.crash:
            os.kill(os.getpid(), signal.SIGKILL)
        if switches.task is not None:
            # All that is known of the task lies in its id: it goes on whatever is restarted.
            done_at = time.time() + switches.task.total_seconds()
            return Accepted(f"sandbox-{done_at:.3f}-{new_id()}", _POLL_AFTER)
        return await _draw(request, fault)

    async def poll(self, task_id: str, request: PictureRequest, key: str) -> Done | Accepted:  # noqa: ARG002 - as above
        """See :class:`nanobatch_generator.ports.TaskProvider`."""
        if time.time() < float(task_id.split("-")[1]):
            return Accepted(task_id, _POLL_AFTER)
        return await _draw(request, read_switches(request.prompt).fault(request.attempts))

    async def ready(self) -> None:
        """See :class:`nanobatch_generator.ports.Provider`."""

    async def check_key(self, model: str, key: str) -> KeyCheck:  # noqa: ARG002 - part of the port; any key is good
        """See :class:`nanobatch_generator.ports.Provider`."""
        return KeyCheck(valid=True, model_available=True)


async def _draw(request: PictureRequest, fault: Fault | None) -> Done:
    if fault is not None:
        fault.strike()
    fingerprint = _fingerprint(request)
    data = await asyncio.to_thread(_make, request, fingerprint, fault)
    return Done(data=data, usage=Usage(reported=True), response_id=fingerprint.hex()[:16])


def _make(request: PictureRequest, fingerprint: bytes, fault: Fault | None) -> bytes:
    # In its thread, and at the first picture: Pillow's 4 MB are for those who draw.
    from nanobatch_generator.providers.sandbox_pictures import draw, picture_bomb, picture_size  # noqa: PLC0415

    if fault is not None and fault.name == "bomb":
        return picture_bomb()
    label = [request.aspect_ratio or "1:1"]
    if request.seed is not None:
        label.append(f"seed {request.seed}")
    if request.input_images:
        label.append(f"{len(request.input_images)} input picture{'s' if len(request.input_images) > 1 else ''}")
    picture = draw(
        words_of(request.prompt) or request.prompt, picture_size(request.aspect_ratio), fingerprint, " · ".join(label)
    )
    return picture[: len(picture) // 2] if fault is not None and fault.name == "damaged" else picture


def _fingerprint(request: PictureRequest) -> bytes:
    digest = hashlib.sha256()
    for text in (request.model, request.prompt, request.aspect_ratio, request.image_size, str(request.seed)):
        digest.update(text.encode() + b"\0")
    for image in request.input_images:
        digest.update(hashlib.sha256(image.data).digest())
    return digest.digest()
