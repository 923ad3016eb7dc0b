"""What the gateway refuses is told in the language of the page."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from nanobatch_client import (
    ImagePrice,
    InternalError,
    Model,
    NanobatchError,
    RateLimitedError,
    UnavailableError,
    Violation,
    errors,
)
from nanobatch_gateway.domain import LOCAL_CALLER, ExecutionDraft, InvalidRequestError, Output, PromptDraft
from nanobatch_gateway.validation import Validator
from nanobatch_runtime.clock import ManualClock
from nanobatch_runtime.ids import new_id
from nanobatch_web import refusals
from nanobatch_web.pages.offer import lifecycle
from nanobatch_web.routes.answers import refuse
from nanobatch_web.texts.refusals import REFUSALS

FRENCH = SimpleNamespace(headers={"accept-language": "fr"})
NOT_AT_THE_PAGE = {
    "NOT_SUPPORTED_YET", "MALFORMED_MESSAGE",  # it sends no such fields, and through the client
    "TOKEN_NOT_FOUND", "USER_NOT_FOUND", "TOKEN_SHOWN", "OWN_ACCOUNT", "PERMISSION_DENIED",  # it manages no users
    "REVISION_UNKNOWN", "WATCH_MOVED", "SPARE_UNAVAILABLE",  # the client or the server mends these
    "LINK_INVALID", "ROUTE_NOT_FOUND", "METHOD_NOT_ALLOWED", "HOST_NOT_ALLOWED", "ORIGIN_NOT_ALLOWED",
    "MALFORMED_REQUEST", "MALFORMED_FORM", "MEDIA_TYPE_NOT_SUPPORTED", "BODY_TOO_LARGE", "BODY_TOO_SLOW",
    "RANGE_NOT_SATISFIABLE",  # the gateway's HTTP port
    "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",  # say nothing that could be said better
}  # fmt: skip
OWN = {"TOO_LARGE", "DEADLINE_EXCEEDED", "MORE_VIOLATIONS"}
"""Reasons of the page itself, of gRPC, and of lists that were cut."""
MINE = new_id()


class MyImages:
    async def find(self, caller: Any, image_ids: Any) -> dict[str, Any]:
        return {image_id: object() for image_id in image_ids if image_id == MINE}


def documented() -> set[str]:
    text = (Path(__file__).parents[3] / "docs/api.md").read_text(encoding="utf-8")
    listed, _, about_keys = text.partition("### Error reasons")[2].partition("`CheckApiKey` is `UNAVAILABLE`")
    rows = [line.split("|")[1] for line in listed.splitlines() if line.startswith("| `")]
    of_keys = about_keys.partition("reason then is one of")[2].partition("A bad key")[0]
    return set(re.findall(r"`([A-Z_]+)`", " ".join([*rows, of_keys])))


def test_every_reason_that_a_person_can_meet_has_a_sentence_in_both_languages() -> None:
    told = {key.removeprefix("refused.") for key in REFUSALS if key.startswith("refused.")}
    assert told == documented() - NOT_AT_THE_PAGE | OWN
    assert documented() >= NOT_AT_THE_PAGE
    assert all(english and french and english != french for english, french in REFUSALS.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"model": ""},
        {"model": "gone"},
        {"prompts": ()},
        {"prompts": tuple(PromptDraft("a") for _ in range(101))},
        {"prompts": (PromptDraft(" "), PromptDraft("x" * 10_001), PromptDraft("a\0b"))},
        {"prompts": (PromptDraft("a", source_image_id=new_id()), PromptDraft("b", source_image_id="x"))},
        {"prompts": (PromptDraft("a", reference_image_ids=(new_id(), "x")), PromptDraft("a", variations=9))},
        {"prompts": (PromptDraft("a", reference_image_ids=(MINE,) * 20),)},
        {"reference_image_ids": (MINE,) * 20},
        {"reference_image_ids": (new_id(), "x")},
        {"api_key": None},
        {"api_key": "x" * 1_000},
        {"api_key": "two words"},
        {"output": Output(aspect_ratio="7:1", image_size="9K")},
        {"variations": 9},
        {"max_cost_micros": -1},
    ],
)
async def test_whatever_the_form_can_hold_is_refused_in_french(changes: dict[str, Any]) -> None:
    fields = {"model": "gemini-2.5-flash-image", "api_key": "key", "prompts": (PromptDraft("a cat"),)}
    with pytest.raises(InvalidRequestError) as refused:
        await Validator(MyImages(), ManualClock()).validate(ExecutionDraft(**{**fields, **changes}), LOCAL_CALLER)
    for found in refused.value.violations:
        bad = Violation(found.field, found.description, found.reason)
        sentence = refusals.told_of_field("fr", bad)
        assert sentence not in {found.description, refusals.told_of_field("en", bad)}, found


@pytest.mark.parametrize(
    ("error", "french"),
    [
        (errors.NotFoundError("No such.", reason="EXECUTION_NOT_FOUND"), "Ce lot n'existe pas."),
        (
            RateLimitedError("Too often.", reason="TOO_MANY_CALLS", retry_after=timedelta(seconds=40)),
            "Vous avez fait trop de demandes en une minute. Réessayez dans 40 s.",
        ),
        (
            InternalError("Broken.", reason="INTERNAL", metadata={"incident": "4711"}),
            "Une erreur du serveur, pas la vôtre. Le numéro 4711 aide qui le gère à la trouver.",
        ),
        (UnavailableError("Gone."), "Le serveur est injoignable. Rien n'est perdu ; réessayez dans un instant."),
        (errors.ConflictError("A new kind of conflict.", reason="NEWS"), "A new kind of conflict."),
        (
            errors.InvalidRequestError(
                "chunk: Not one.", violations=[Violation("chunk", "Not one.", "NOT_A_PICTURE")], reason="NOT_A_PICTURE"
            ),
            "Ce n'est ni du PNG, ni du JPEG, ni du WebP.",
        ),
        (
            errors.InvalidRequestError(
                "x", violations=[Violation(f"edits[{n}].text", "It is empty.", "REQUIRED") for n in range(3)]
            ),
            "Il est vide : écrivez quelque chose ou retirez-le.",
        ),
    ],
    ids=lambda given: getattr(given, "reason", ""),
)
async def test_a_refused_call_is_told_in_french_and_an_unknown_reason_in_the_servers_words(
    error: NanobatchError, french: str
) -> None:
    request = Request({"type": "http", "headers": [(b"accept-language", b"fr-FR,fr;q=0.9")]})
    assert json.loads(bytes((await refuse(request, error)).body))["error"]["message"] == french


def test_a_retirement_is_told_in_french_with_what_the_successor_costs() -> None:
    old = Model("old", "p", retirement_date="2026-11-30", successor="new", warnings=("old retires on 2026-11-30; ...",))
    new = Model("new", "p", prices=(ImagePrice("1K", 39_000),))
    assert lifecycle(old, [old, new], FRENCH) == [
        "retiré le 2026-11-30 ; successeur : new",
        "il est utilisé tant que le fournisseur le propose",
        "new coûte $0.039 par image",
    ]
    assert len(lifecycle(replace(old, warnings=()), [old, new], FRENCH)) == 1
    assert lifecycle(new, [old, new], FRENCH) == []
