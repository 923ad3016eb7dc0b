"""What browsers are told, as plain values. Prompts are text; nothing here is markup."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from nanobatch_client import Execution, Progress, Result, Stats, Waiting
from nanobatch_client.models import WaitReason


def stats(value: Stats) -> dict[str, Any]:
    """Counts in pictures; money in micros."""
    return {
        "total": value.total,
        "pending": value.pending,
        "processing": value.processing,
        "completed": value.completed,
        "failed": value.failed,
        "cancelled": value.cancelled,
        "percent": value.completion_percentage,
        "cost": value.total_cost_micros,
        "uncertain": value.uncertain_cost_micros,
    }


def execution(value: Execution) -> dict[str, Any]:
    """Return the execution itself, without its prompts."""
    return {
        "id": value.id,
        "state": value.state.value,
        "final": value.state.is_final,
        "pause": value.pause_reason.value,
        "resumes": _time(value.resume_time),
        "model": value.model,
        "estimated": value.estimated_cost_micros,
        "cap": value.max_cost_micros,
        "created": _time(value.create_time),
        "started": _time(value.start_time),
        "ended": _time(value.end_time),
        "parent": value.parent_execution_id,
    }


def addresses(value: Result) -> dict[str, Any]:
    """Return where a picture is: signed, the same all day (UTC), and good until the end of the next one."""
    return {"url": value.image_url, "thumb": value.thumbnail_url}


def result(value: Result) -> dict[str, Any]:
    """Return one wanted picture."""
    fields: dict[str, Any] = {
        "id": value.id,
        "index": value.batch_index,
        "variation": value.variation,
        "text": value.prompt_text,
        "state": value.state.value,
        **addresses(value),
        "image": value.image_id,
        "width": value.width,
        "height": value.height,
        "ms": None if value.processing_time is None else round(value.processing_time.total_seconds() * 1000),
        "cost": value.cost_micros,
        "uncertain": value.uncertain_cost_micros,
        "attempts": value.attempts,
        "revision": value.revision,
        "waiting": waiting(value.waiting),
    }
    if value.error is not None:
        fields["error"] = {
            "code": value.error.code,
            "message": value.error.message,
            "retryable": value.error.retryable,
            "charged": value.error.charged.value,
        }
    return fields


def progress(value: Progress) -> dict[str, Any]:
    """Return a light estimate; an empty ``id`` is about the whole run."""
    return {
        "id": value.result_id,
        "percent": value.percent,
        "eta": None if value.eta is None else round(value.eta.total_seconds(), 1),
        "waiting": waiting(value.waiting),
    }


def waiting(value: Waiting | None) -> dict[str, Any] | None:
    """Return why something waits and until when, or None where it only waits for its turn."""
    if value is None or value.reason is WaitReason.UNSPECIFIED:
        return None
    return {"reason": value.reason.value, "until": _time(value.until)}


def _time(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()
