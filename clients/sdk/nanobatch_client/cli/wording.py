"""Sentences and figures for people; pure."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from nanobatch_client.errors import (
    InvalidRequestError,
    NanobatchError,
    UnauthenticatedError,
    UnreachableError,
    Violation,
)
from nanobatch_client.models import Execution, PauseReason, Result, Stats, Waiting, WaitReason

DEFAULT_TARGET = "127.0.0.1:50051"
TARGET_VARIABLE = "NANOBATCH_GATEWAY_TARGET"
KEY_VARIABLE = "GEMINI_API_KEY"
TOKEN_VARIABLE = "NANOBATCH_TOKEN"  # noqa: S105  # the name of a variable

_FIRST_WORDS = 40
_PROMPT_FIELD = re.compile(r"\bprompts(?:_text)?\[(\d+)\]")
_PROMPT_SENTENCE = re.compile(r"Prompt (\d+)\b")  # how the gateway names a prompt of `prompts_text`
_WAITS = {
    WaitReason.RATE_LIMITED: "the provider refused a call as one too many",
    WaitReason.OVERLOADED: "the provider is overloaded",
    WaitReason.DAILY_QUOTA: "the provider's quota of the day is used up",
    WaitReason.BACKOFF: "a pause before the next try",
    WaitReason.KEY_CHECK: "the key is being checked",
    WaitReason.PACED: "as fast as the provider lets this key",
}


def money(micros: int) -> str:
    """Return dollars with at least two decimals and no rounding: ``$0.039``."""
    whole, rest = divmod(abs(micros), 1_000_000)
    decimals = f"{rest:06}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}${whole}.{decimals}"


def duration(span: timedelta) -> str:
    """Return ``12 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    seconds = max(0, round(span.total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def clock(moment: datetime) -> str:
    """Return a moment in the reader's own time zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def first_words(text: str) -> str:
    """Return the beginning of a prompt on one line, in quotation marks."""
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= _FIRST_WORDS else f'"{line[:_FIRST_WORDS].rstrip()}…"'


def many(count: int, thing: str) -> str:
    """Return a number with its noun: ``1 result``, ``2 results``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def counts(stats: Stats) -> str:
    """Return how a run stands, on one line."""
    parts = [f"{stats.completed} done"]
    parts += [f"{stats.failed} failed"] if stats.failed else []
    parts += [f"{stats.cancelled} cancelled"] if stats.cancelled else []
    parts += [f"{stats.left} left"] if stats.left else []
    parts.append(cost(stats))
    return ", ".join(parts)


def cost(stats: Stats) -> str:
    """Return what was spent, with what may have been spent besides."""
    if not stats.uncertain_cost_micros:
        return money(stats.total_cost_micros)
    return f"{money(stats.total_cost_micros)} (and perhaps {money(stats.uncertain_cost_micros)} more)"


def waiting(wait: Waiting) -> str:
    """Return why something waits and until when."""
    reason = _WAITS.get(wait.reason, "its turn")
    return f"waiting: {reason}" + (f", until {clock(wait.until)}" if wait.until else "")


def failure(result: Result) -> str:
    """Return why a result failed."""
    if result.error is None:
        return "failed"
    return f"failed: {result.error.message} ({result.error.code}, charged: {result.error.charged.value.lower()})"


def command(name: str, execution_id: str, target: str, *rest: str) -> str:
    """Return a command line to be typed, naming the server where it is not the usual one."""
    usual = os.environ.get(TARGET_VARIABLE) or DEFAULT_TARGET
    return " ".join(["nanobatch", name, execution_id, *rest, *([] if target == usual else ["--target", target])])


def pause_advice(execution: Execution, target: str) -> str:
    """Return why a run stands still, and what to type next."""

    def resume(*rest: str) -> str:
        return f"`{command('resume', execution.id, target, *rest)}`"

    left = f"{execution.stats.left} left"
    watch = f"`{command('watch', execution.id, target)}`"
    by_itself = f" It goes on by itself at {clock(execution.resume_time)}." if execution.resume_time else ""
    match execution.pause_reason:
        case PauseReason.INVALID_KEY:
            return f"Paused: the provider refuses the key. With another one: {resume('--api-key-env', KEY_VARIABLE)}"
        case PauseReason.SPEND_CAP:
            cap = f" of {money(execution.max_cost_micros)}" if execution.max_cost_micros is not None else ""
            return f"Paused: spend cap{cap} reached, {left}. Raise it: {resume('--max-cost', 'DOLLARS')}"
        case PauseReason.DAILY_SPEND_CAP:
            return f"Paused: your spend cap of the day is reached, {left}.{by_itself} Or ask an admin to raise it."
        case PauseReason.DAILY_QUOTA:
            return (
                f"Paused: the provider's quota of the day is used up.{by_itself} Wait with {watch}, or try {resume()}"
            )
        case PauseReason.MODEL_GONE:
            return f"Paused: the provider no longer offers {execution.model}. `nanobatch models` names its successor."
        case _:
            return f"Paused by a user. Go on: {resume()}"


def problem(error: NanobatchError, target: str, prompts: Sequence[str] = ()) -> list[str]:
    """Return the lines that tell a person what went wrong; ``prompts`` let them name the prompt that is meant."""
    if isinstance(error, UnreachableError):
        return [
            f"No nanobatch server answers at {target}.",
            "Start one with `make run` (or `nanobatch up`), or name another one with --target.",
        ]
    if isinstance(error, InvalidRequestError) and error.violations:
        lines = ["The request is refused:", *(f"  - {violation(each, prompts)}" for each in error.violations)]
    else:
        lines = [error.message]
    if error.reason == "KEY_NEEDED" or any(bad.field.endswith("api_key") for bad in error.violations):
        lines.append(f"Give the key by the name of its environment variable: --api-key-env {KEY_VARIABLE}")
    if isinstance(error, UnauthenticatedError):
        lines.append(f"Commands send the token that stands in the environment variable {TOKEN_VARIABLE}.")
    if error.retry_after is not None:
        lines.append(f"Try again in {duration(error.retry_after)}.")
    return lines


def violation(bad: Violation, prompts: Sequence[str] = ()) -> str:
    """Return one bad field; a prompt is named by its number, counted from 1, and its first words."""
    by_field, by_sentence = _PROMPT_FIELD.search(bad.field), _PROMPT_SENTENCE.match(bad.description)
    if by_field:
        number, description = int(by_field.group(1)) + 1, f": {bad.description}"
    elif by_sentence:
        number, description = int(by_sentence.group(1)), bad.description[by_sentence.end() :]
    else:
        return f"{bad.field}: {bad.description}" if bad.field else bad.description
    words = f" {first_words(prompts[number - 1])}" if 0 < number <= len(prompts) else ""
    return f"prompt {number}{words}{description}"
