"""The road of one lease: key, input pictures, key check, attempt, call, spool, check, commit."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from datetime import timedelta
from functools import partial

import structlog

from nanobatch_catalog import find_model, output_token_limit
from nanobatch_generator import tally
from nanobatch_generator.domain import (
    Accepted,
    Charged,
    Done,
    EndedCall,
    Failure,
    FailureClass,
    ImageGoneError,
    Lease,
    LeaseLostError,
    PictureRequest,
    ProviderError,
    WindowFullError,
)
from nanobatch_generator.finish import Finish
from nanobatch_generator.inputs import Inputs
from nanobatch_generator.latency import Latencies
from nanobatch_generator.patience import patiently, with_room
from nanobatch_generator.places import Places
from nanobatch_generator.ports import Caller, LeaseSource, Provider, Spare
from nanobatch_generator.running import Phase, Work
from nanobatch_generator.spool import Spool, SpoolEntry
from nanobatch_generator.tasks import await_task
from nanobatch_generator.turnover import Turnover
from nanobatch_generator.turns import Turns
from nanobatch_runtime import requests, tracing
from nanobatch_runtime.errors import NanobatchError, RemoteError
from nanobatch_runtime.failpoints import failpoint
from nanobatch_runtime.keyring import Identity, Keyring, SealBrokenError, UnknownKeyError
from nanobatch_runtime.metrics import LEASES_LOST

_log = structlog.get_logger("nanobatch.render")

# No call starts later than 2 s after a cancel was answered. StartAttempt refuses what was cancelled, and a call begins
# within this time of asking it.
_FRESH_SECONDS = 1.5

KEY_CHECK_LIMIT = timedelta(seconds=30)


class Render:
    """Walks the road. It never raises for what went wrong on it: storage is told, and decides what follows."""

    def __init__(
        self,
        *,
        leases: LeaseSource,
        inputs: Inputs,
        providers: Mapping[str, Provider],
        keyring: Keyring,
        spool: Spool,
        finish: Finish,
        latencies: Latencies,
        spare: Spare,
        turnover: Turnover,
    ) -> None:
        """``providers`` by name; ``spare`` makes the calls of suspects."""
        self._leases = leases
        self._inputs = inputs
        self._providers = providers
        self._keyring = keyring
        self._spool = spool
        self._finish = finish
        self._latencies = latencies
        self._spare = spare
        self._turnover = turnover
        self._places = Places()
        self._turns = Turns()

    async def run(self, work: Work) -> None:
        """Work on one lease until its result is committed, its failure told, or the lease lost."""
        lease = work.lease
        facts = {"result": lease.ref.result_id, "execution": lease.execution_id}
        requests.adopt(lease.origin_request_id)
        structlog.contextvars.bind_contextvars(**facts)
        tracing.adopt(lease.origin_traceparent)
        with tracing.span("work on a result", "INTERNAL", **facts):
            await self._work(work)

    async def _work(self, work: Work) -> None:
        try:
            failure = await self._try(work)
            if failure is None:
                tally.finished(work)
                _log.info("result.finished", attempt=work.attempt_id, state=work.state, seconds=_seconds(work))
                return
            ref, attempt_id = work.lease.ref, work.attempt_id
            state = await patiently(lambda: self._leases.fail(ref, attempt_id, failure))
            self._places.hand_over(work.lease.bucket_id, None)
            tally.failed(work, failure)
        except LeaseLostError:
            LEASES_LOST.inc()
            _log.info("lease.lost", phase=work.phase.name)
        except RemoteError as error:
            # Storage refuses to hear of it: the lease runs out, and the attempt closes as one that may be charged.
            _log.warning("result.untold", reason=error.reason, attempt=work.attempt_id)
        else:
            _log.info("result.failed", code=failure.code, charged=failure.charged.name, state=state)

    async def _try(self, work: Work) -> Failure | None:
        try:
            await self._walk(work)
        except LeaseLostError:
            raise
        except ProviderError as error:
            return Failure.of(error, work.elapsed)
        except Exception as error:  # noqa: BLE001  # a bug here must cost one attempt, and never the process
            return _incident(work, error)
        return None

    async def _walk(self, work: Work) -> None:
        lease = work.lease
        if lease.job is not None:
            work.accepted(lease.job.attempt_id, lease.job.elapsed)
        try:
            provider = self._provider(lease)
            key = self._open_key(lease)
            request = await self._request(lease)
        except ProviderError as error:
            if lease.job is not None:  # what was submitted goes on without us
                error.charged = Charged.MAYBE
            raise
        if lease.job is not None:  # paid for, perhaps, and going on: it is never submitted again
            answer: Done | Accepted = Accepted(lease.job.task_id, timedelta(0))
        else:
            answer = await self._submit(work, provider, request, key)
        if isinstance(answer, Accepted):
            done = await await_task(provider, request, key, answer, request.timeout - work.elapsed)
        else:
            done = answer
        work.answered(done.usage)
        tally.answered(work)
        self._latencies.note(lease.model, work.elapsed)
        entry = SpoolEntry(
            folder=self._spool.folder,
            ref=lease.ref,
            attempt_id=work.attempt_id,
            lease_duration=lease.duration,
            usage=done.usage,
            response_id=done.response_id,
            processing_time=work.elapsed,
        )
        telling = asyncio.create_task(self._end_call(EndedCall(lease.ref, work.attempt_id, lease.execution_id), lease))
        try:
            await with_room(partial(self._spool.write, entry, done.data))
        finally:
            await telling
        failpoint("spooled")
        del done, answer, request  # from here on the picture lies on disk: many of them may wait for a slow storage
        await self._turnover.next_call()
        work.state = await self._finish.run(entry)

    async def _submit(self, work: Work, provider: Provider, request: PictureRequest, key: str) -> Done | Accepted:
        lease = work.lease
        if lease.check_key:
            await self._check_key(lease, provider, key)
        await provider.ready()
        async with self._spare.process(lease.provider) if lease.suspect else nullcontext(provider) as caller:
            work.called(await self._start(lease))
            self._turnover.begun()
            failpoint("attempt_written")
            what = {"provider": lease.provider, "model": lease.model, "attempt": work.attempt_id}
            with tracing.span("call of the provider", "CLIENT", **what):
                answer = await _call(caller, request, key)
        if isinstance(answer, Accepted):
            task_id = answer.task_id
            await patiently(lambda: self._leases.note_job(lease.ref, work.attempt_id, task_id))
            work.accepted(work.attempt_id, work.elapsed)
        return answer

    async def _start(self, lease: Lease) -> str:
        """Open the attempt, once the bucket has a place for the call, which is to begin at once."""
        ended = await self._places.wait(lease.bucket_id, _look_again()) if lease.standby else None
        asked: list[float] = []

        async def ask() -> str:
            asked.append(time.monotonic())
            return await self._leases.start_attempt(lease, ended)

        while True:
            if ended is not None and ended.execution_id != lease.execution_id:
                await self._tell_end(ended)
                ended = None
            try:
                attempt_id = await self._leave(lease.bucket_id, ask)
            except WindowFullError:
                ended = await self._places.wait(lease.bucket_id, _look_again())
            except LeaseLostError:
                if len(asked) > 1:  # an earlier asking may have opened it: nothing was sent
                    await self._give_back(lease)
                self._places.hand_over(lease.bucket_id, None)  # the place is somebody else's then
                raise
            else:
                # An old answer may have been overtaken by a cancel: no call begins on one (this process may have slept).
                if time.monotonic() - asked[-1] <= _FRESH_SECONDS:
                    return attempt_id
                ended = None

    async def _give_back(self, lease: Lease) -> None:
        try:
            await self._leases.release([lease.ref])
        except NanobatchError as error:  # storage closes it as perhaps charged when the lease expires
            _log.warning("lease.unreleased", count=1, error=str(error))

    async def _leave(self, bucket_id: str, ask: Callable[[], Awaitable[str]]) -> str:
        """Ask for leave to start; where the pace of the bucket puts it off, wait for that, few at a time."""
        if not self._turns.are_kept(bucket_id):
            try:
                return await patiently(ask)
            except WindowFullError as full:
                if full.retry_after is None:
                    raise
        async with self._turns.turn(bucket_id) as turn:
            while True:
                try:
                    attempt_id = await patiently(ask)
                except WindowFullError as full:
                    if full.retry_after is None:
                        raise
                    turn.put_off()
                    await asyncio.sleep(full.retry_after.total_seconds())
                else:
                    turn.given()
                    return attempt_id

    async def _end_call(self, ended: EndedCall, lease: Lease) -> None:
        """Let the next call begin while this picture is finished."""
        if self._places.hand_over(lease.bucket_id, ended) or lease.roomy:
            return
        await self._tell_end(ended)
        self._places.hand_over(lease.bucket_id, None)  # to one that was leased to stand by meanwhile

    async def _tell_end(self, ended: EndedCall) -> None:
        # A matter of pace alone: a failure only costs time.
        try:
            await self._leases.end_call(ended)
        except NanobatchError as error:
            _log.debug("call.end_untold", reason=error.reason, result=ended.ref.result_id)

    def _provider(self, lease: Lease) -> Provider:
        provider = self._providers.get(lease.provider)
        if provider is None:  # a newer gateway knows more than this generator: it backs off, others may take it
            message = f"This generator does not know the provider {lease.provider}."
            raise ProviderError(FailureClass.TRANSIENT, "PROVIDER_UNKNOWN", message)
        return provider

    def _open_key(self, lease: Lease) -> str:
        credential = lease.credential
        if credential is None:
            return ""
        identity = Identity("provider-key", credential.user_id, credential.id)
        try:
            return self._keyring.open(credential.key, identity)
        except (UnknownKeyError, SealBrokenError) as error:
            raise ProviderError(FailureClass.KEY_UNUSABLE, error.reason, error.message) from error

    async def _request(self, lease: Lease) -> PictureRequest:
        try:
            images = await patiently(lambda: self._inputs.of(lease))
        except ImageGoneError as error:
            raise ProviderError(FailureClass.BAD_REQUEST, "INPUT_IMAGE_GONE", error.message) from error
        model = find_model(lease.model)
        return PictureRequest(
            model=lease.model,
            prompt=lease.prompt,
            timeout=lease.timeout,
            input_images=images,
            aspect_ratio=lease.aspect_ratio,
            image_size=lease.image_size,
            seed=lease.seed,
            attempts=lease.attempts,
            max_output_tokens=output_token_limit(model, lease.image_size) if model is not None else 0,
        )

    async def _check_key(self, lease: Lease, provider: Provider, key: str) -> None:
        try:
            async with asyncio.timeout(KEY_CHECK_LIMIT.total_seconds()):
                check = await provider.check_key(lease.model, key)
        except TimeoutError:
            message = "The provider did not answer when it was asked about the key."
            raise ProviderError(FailureClass.TRANSIENT, "KEY_CHECK_TIMEOUT", message) from None
        if not check.valid:
            message = check.message or "The provider does not accept this key."
            raise ProviderError(FailureClass.KEY_INVALID, "API_KEY_INVALID", message)
        if not check.model_available:
            message = check.message or f"The provider does not offer {lease.model} to this key."
            raise ProviderError(FailureClass.MODEL_GONE, "MODEL_NOT_OFFERED", message)
        await patiently(lambda: self._leases.confirm_key(lease.ref, lease.bucket_id))


async def _call(caller: Caller, request: PictureRequest, key: str) -> Done | Accepted:
    """Call under a deadline of our own: whatever the library does, a hung call must not be kept alive for ever."""
    deadline = asyncio.timeout(request.timeout.total_seconds())
    try:
        async with deadline:
            return await caller.submit(request, key)
    except TimeoutError:
        if not deadline.expired():
            raise
        seconds = f"{request.timeout.total_seconds():g}"
        message = f"The provider did not answer within {seconds} s; the call may have been charged."
        raise ProviderError(FailureClass.UNKNOWN, "CALL_TIMED_OUT", message, charged=Charged.MAYBE) from None


def _look_again() -> timedelta:
    # A call may have ended in another generator: look again, not all at once.
    return timedelta(seconds=random.uniform(1.0, 2.0))  # noqa: S311  # spreads load, guards nothing


def _incident(work: Work, error: Exception) -> Failure:
    incident = uuid.uuid4().hex[:12]
    _log.error("render.failed", incident=incident, result=work.lease.ref.result_id, exc_info=error)
    # What is said of money follows from how far it came: nothing sent, sent and unknown, answered with a usage.
    failure_class, charged = {
        Phase.PREPARING: (FailureClass.TRANSIENT, Charged.NO),
        Phase.CALLING: (FailureClass.UNKNOWN, Charged.MAYBE),
        Phase.WAITING: (FailureClass.UNKNOWN, Charged.MAYBE),
        Phase.FINISHING: (FailureClass.TRANSIENT, Charged.YES),
    }[work.phase]
    code = error.reason if isinstance(error, NanobatchError) else "INTERNAL"
    message = f"Something went wrong on our side; the generator's log has it as incident {incident}."
    return Failure(failure_class, code, message, charged, work.usage, processing_time=work.elapsed)


def _seconds(work: Work) -> float:
    return round(work.elapsed.total_seconds(), 3)
