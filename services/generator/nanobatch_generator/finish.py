"""From a provider's bytes on disk to storage's commit: the last part of the road, also walked by the replay."""

from __future__ import annotations

import structlog

from nanobatch_generator.domain import (
    Charged,
    Completion,
    Failure,
    FailureClass,
    FinishedPicture,
    LeaseLostError,
    PictureKind,
    PictureRejectedError,
)
from nanobatch_generator.patience import patiently, pause
from nanobatch_generator.ports import LeaseSource, Pictures, Sink
from nanobatch_generator.spool import Spool, SpoolEntry
from nanobatch_runtime.errors import Kind, RemoteError
from nanobatch_runtime.failpoints import failpoint
from nanobatch_runtime.ids import derived_id

_log = structlog.get_logger("nanobatch.finish")

# Refusals that are neither the fence nor an outage (a bug): some patience, then the ledger is told.
_REFUSALS = 5


class Finish:
    """Checks a spooled picture, hands it over under its lease, and forgets it."""

    def __init__(self, leases: LeaseSource, sink: Sink, pictures: Pictures, spool: Spool) -> None:
        """Nothing is opened here."""
        self._leases = leases
        self._sink = sink
        self._pictures = pictures
        self._spool = spool

    async def run(self, entry: SpoolEntry) -> str:
        """Return the result's state after it. Waits out outages of storage; the entry stays while it does.

        Raises LeaseLostError, the entry removed: storage has closed the attempt as one that may have been charged.
        Any other error leaves the entry where it is.
        """
        try:
            state = await self._settled(entry)
        except LeaseLostError:
            await self._spool.remove(entry)
            raise
        await self._spool.remove(entry)
        return state

    async def _settled(self, entry: SpoolEntry) -> str:
        try:
            completion = await self._checked(entry)
        except PictureRejectedError as error:
            return await self._failed(entry, FailureClass.DAMAGED, error.code, error.message)
        refusals = 0
        while True:
            try:
                return await patiently(lambda: self._sink.complete(completion))
            except RemoteError as error:
                if error.kind is Kind.NOT_FOUND:
                    raise LeaseLostError("The result is gone.") from error
                refusals += 1
                _log.warning("result.refused", result=entry.ref.result_id, reason=error.reason, refusals=refusals)
                if refusals == _REFUSALS:
                    message = "The picture was made and paid for, but could not be stored; try again."
                    return await self._failed(entry, FailureClass.TRANSIENT, "STORING_FAILED", message)
            await pause(refusals)

    async def _checked(self, entry: SpoolEntry) -> Completion:
        checked = await self._pictures.check(entry.master)
        failpoint("decoded")
        pictures = tuple(
            FinishedPicture(derived_id(entry.attempt_id, kind.name.lower()), kind, source, facts)
            for kind, source, facts in (
                (PictureKind.MASTER, entry.master, checked.master),
                (PictureKind.THUMBNAIL, checked.thumbnail_data, checked.thumbnail),
            )
        )
        return Completion(
            ref=entry.ref,
            attempt_id=entry.attempt_id,
            pictures=pictures,
            usage=entry.usage,
            processing_time=entry.processing_time,
            response_id=entry.response_id,
        )

    async def _failed(self, entry: SpoolEntry, failure_class: FailureClass, code: str, message: str) -> str:
        failure = Failure(
            failure_class,
            code,
            message,
            charged=Charged.YES,
            usage=entry.usage,
            response_id=entry.response_id,
            processing_time=entry.processing_time,
        )
        return await patiently(lambda: self._leases.fail(entry.ref, entry.attempt_id, failure))


class Replay:
    """Finishes what dead processes left, before the first new lease."""

    def __init__(self, spool: Spool, finish: Finish) -> None:
        """Nothing is read here."""
        self._spool = spool
        self._finish = finish

    async def entries(self) -> list[SpoolEntry]:
        """Return what is to be finished."""
        return await self._spool.leftovers()

    async def run(self, entry: SpoolEntry) -> None:
        """Finish one entry. What cannot be finished is said and stays for the next start; it must not stop this one."""
        facts = {"result": entry.ref.result_id, "attempt": entry.attempt_id}
        try:
            state = await self._finish.run(entry)
        except LeaseLostError:
            # Somebody else was quicker, or the execution is gone: storage closed the attempt as MAYBE.
            _log.warning("spool.overtaken", **facts)
        except RemoteError as error:
            _log.error("spool.refused", reason=error.reason, **facts)
        except Exception:  # noqa: BLE001  # a broken leftover must not keep the generator from working
            _log.exception("spool.failed", **facts)
        else:
            _log.info("spool.replayed", state=state, **facts)
