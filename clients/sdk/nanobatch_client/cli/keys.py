"""Which model and which provider key a command uses. A key comes from the environment, never from an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nanobatch_client.cli.wording import KEY_VARIABLE

FREE_MODEL = "sandbox"
PAID_MODEL = "gemini-2.5-flash-image"


class KeyVariableError(Exception):
    """The named environment variable holds nothing."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A model, its key, and the name of the variable that held the key."""

    model: str
    api_key: str | None = field(default=None, repr=False)
    variable: str = ""


def choose(model: str | None, variable: str | None, environ: Mapping[str, str]) -> Choice:
    """Choose: the sandbox until a key is given, then Gemini; a named model as it is.

    A variable that nobody named is read for Gemini's models only: a key goes to no provider but its own.
    """
    key = named_key(variable, environ)
    fallback = environ.get(KEY_VARIABLE, "").strip()
    if model is None:
        model = PAID_MODEL if key or fallback else FREE_MODEL
    if model == FREE_MODEL:
        return Choice(model)
    if key and variable:
        return Choice(model, key, variable)
    if fallback and model.startswith("gemini"):
        return Choice(model, fallback, KEY_VARIABLE)
    return Choice(model)


def named_key(variable: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the key in the named variable, None where none is named. Raises KeyVariableError where it is empty."""
    if variable is None:
        return None
    key = environ.get(variable, "").strip()
    if not key:
        # A key given in place of a name would be in `variable`: it is not repeated, because this line may be logged.
        shown = f"The environment variable {variable}" if variable.isidentifier() and variable.isupper() else "It"
        raise KeyVariableError(f"{shown} is not set. --api-key-env takes the name of a variable, not a key.")
    return key
