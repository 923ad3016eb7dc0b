"""What the gateway refuses, in the words of the page: by reason, and in the gateway's own where it has none here."""

from __future__ import annotations

from datetime import timedelta

from nanobatch_client import NanobatchError, UnavailableError, Violation
from nanobatch_web import texts
from nanobatch_web.pages.money import duration

_A_MOMENT = timedelta(seconds=10)


def told(language: str, error: NanobatchError) -> str:
    """Return what a person should read about an error."""
    if error.violations:
        return " ".join(dict.fromkeys(told_of_field(language, each) for each in error.violations))
    key = f"refused.{error.reason}"
    if texts.has(key):
        wait = duration(error.retry_after or _A_MOMENT)
        return texts.say(language, key, wait=wait, incident=error.metadata.get("incident", "-"))
    return texts.say(language, "error.gateway") if isinstance(error, UnavailableError) else error.message


def told_of_field(language: str, problem: Violation) -> str:
    """Return what a person should read about one bad field; ``prompts[3].text`` is told like any other text."""
    name = problem.field.rpartition(".")[2].partition("[")[0]
    keys = (f"bad.{name}.{problem.reason}", f"refused.{problem.reason}")
    return next((texts.say(language, key) for key in keys if texts.has(key)), problem.description)
