"""What a generator counts of the attempts that it sees end. The ledger is storage's; this is for those who watch."""

from __future__ import annotations

from nanobatch_generator.domain import Charged, Failure
from nanobatch_generator.running import Work
from nanobatch_runtime.metrics import ATTEMPTS, CALL_SECONDS, COST_MICROS

NOT_STORED = "NOT_STORED"
"""Answered and paid for, but the answer was no picture, or storage would not have it."""


def answered(work: Work) -> None:
    """Count a call that has brought an answer, how long that took and what it cost."""
    what = work.lease.provider, work.lease.model
    CALL_SECONDS.labels(*what).observe(work.elapsed.total_seconds())
    if work.usage is not None:
        COST_MICROS.labels(*what).inc(work.usage.cost_micros)


def finished(work: Work) -> None:
    """Count an answered attempt when storage has closed it."""
    outcome = "COMPLETED" if work.state in {"COMPLETED", "CANCELLED"} else NOT_STORED
    _count(work, outcome, Charged.YES)


def failed(work: Work, failure: Failure) -> None:
    """Count an attempt that failed, where one was begun. What nobody knows to have cost counts as an attempt alone."""
    if not work.attempt_id:
        return
    _count(work, failure.failure_class.name, failure.charged)
    if failure.charged is Charged.YES and failure.usage is not None and failure.usage is not work.usage:
        COST_MICROS.labels(work.lease.provider, work.lease.model).inc(failure.usage.cost_micros)


def _count(work: Work, outcome: str, charged: Charged) -> None:
    ATTEMPTS.labels(work.lease.provider, work.lease.model, outcome, charged.name).inc()
