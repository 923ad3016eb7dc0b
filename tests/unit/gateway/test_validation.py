"""Everything that is wrong with a request is found at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from nanobatch_catalog import find_model
from nanobatch_gateway.create import request_hash
from nanobatch_gateway.domain import (
    LOCAL_CALLER,
    Caller,
    ExecutionDraft,
    ExecutionRequest,
    InvalidRequestError,
    Mode,
    Output,
    PromptDraft,
    UnknownPolicy,
)
from nanobatch_gateway.estimate import list_price, worst_call
from nanobatch_gateway.validation import Validator
from nanobatch_runtime.clock import ManualClock
from nanobatch_runtime.ids import new_id

FLASH = "gemini-2.5-flash-image"
FLASH_31 = "gemini-3.1-flash-image"
MINE = new_id()
OTHERS = new_id()


class MyImages:
    """One picture is mine."""

    def __init__(self) -> None:
        self.calls = 0

    async def find(self, caller: Caller, image_ids: Any) -> dict[str, Any]:
        self.calls += 1
        return {image_id: object() for image_id in image_ids if image_id == MINE}


def draft(**changes: Any) -> ExecutionDraft:
    fields: dict[str, Any] = {"model": FLASH, "api_key": "key", "prompts_text": "a cat"}
    return ExecutionDraft(**{**fields, **changes})


def prompts(*texts: str, **changes: Any) -> dict[str, Any]:
    return {"prompts_text": "", "prompts": tuple(PromptDraft(text, **changes) for text in texts)}


async def validate(checked: ExecutionDraft, **options: Any) -> ExecutionRequest:
    return await Validator(MyImages(), ManualClock()).validate(checked, LOCAL_CALLER, **options)  # type: ignore[arg-type]


async def violations(checked: ExecutionDraft) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequestError) as caught:
        await validate(checked)
    return [(violation.field, violation.reason) for violation in caught.value.violations]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"prompts_text": ""}, [("prompts", "REQUIRED")]),
        ({"prompts_text": " \n \n"}, [("prompts_text", "REQUIRED")]),
        ({"prompts_text": "\n\n".join(["a"] * 101)}, [("prompts_text", "TOO_MANY")]),
        (prompts(*["a"] * 101), [("prompts", "TOO_MANY")]),
        (prompts("a", " "), [("prompts[1].text", "REQUIRED")]),
        ({**prompts("a"), "prompts_text": "b"}, [("prompts_text", "CONFLICT")]),
        ({"prompts_text": "x" * 10_001}, [("prompts_text", "TOO_LONG")]),
        (prompts("a", "x" * 10_001), [("prompts[1].text", "TOO_LONG")]),
        ({**prompts("x" * 9_990), "prompt_prefix": "p" * 10}, [("prompts[0].text", "TOO_LONG")]),
        ({**prompts("x" * 9_990), "prompt_suffix": "p" * 10}, [("prompts[0].text", "TOO_LONG")]),
        ({"prompt_prefix": "p" * 10_000}, [("prompt_prefix", "TOO_LONG")]),
        ({"prompt_suffix": "\0"}, [("prompt_suffix", "MALFORMED")]),
        ({"prompts_text": "a\0b"}, [("prompts_text", "MALFORMED")]),
        (prompts("a\x07"), [("prompts[0].text", "MALFORMED")]),
        ({"model": ""}, [("model", "REQUIRED")]),
        ({"model": "dall-e-3"}, [("model", "UNKNOWN_MODEL")]),
        ({"api_key": None}, [("api_key", "REQUIRED")]),
        ({"api_key": "  "}, [("api_key", "REQUIRED")]),
        ({"api_key": "two words"}, [("api_key", "MALFORMED")]),
        ({"api_key": "k" * 513}, [("api_key", "TOO_LONG")]),
        ({"output": Output(aspect_ratio="7:1")}, [("output.aspect_ratio", "NOT_OFFERED")]),
        ({"output": Output(image_size="2K")}, [("output.image_size", "NOT_OFFERED")]),
        ({"model": FLASH_31, "output": Output(image_size="8K")}, [("output.image_size", "NOT_OFFERED")]),
        ({"reference_image_ids": (MINE,) * 4}, [("reference_image_ids", "TOO_MANY")]),
        (prompts("a", reference_image_ids=(MINE,) * 4), [("prompts[0].reference_image_ids", "TOO_MANY")]),
        ({"reference_image_ids": (MINE, OTHERS)}, [("reference_image_ids[1]", "NOT_FOUND")]),
        (
            {"reference_image_ids": ("", "x")},
            [("reference_image_ids[0]", "REQUIRED"), ("reference_image_ids[1]", "MALFORMED")],
        ),
        (prompts("a", source_image_id=OTHERS), [("prompts[0].source_image_id", "NOT_FOUND")]),
        (prompts("a", source_image_id="x"), [("prompts[0].source_image_id", "MALFORMED")]),
        (prompts("a", variations=5), [("prompts[0].variations", "OUT_OF_RANGE")]),
        (prompts("a", variations=0), [("prompts[0].variations", "OUT_OF_RANGE")]),
        ({"request_id": "x"}, [("request_id", "MALFORMED")]),
        ({"request_id": new_id().upper()}, [("request_id", "MALFORMED")]),
        ({"workflow_id": "x"}, [("workflow_id", "MALFORMED")]),
        ({"parent_execution_id": "x"}, [("parent_execution_id", "MALFORMED")]),
        ({"variations": 0}, [("variations", "OUT_OF_RANGE")]),
        ({"variations": 5}, [("variations", "OUT_OF_RANGE")]),
        ({"max_attempts": 0}, [("max_attempts", "OUT_OF_RANGE")]),
        ({"max_attempts": 11}, [("max_attempts", "OUT_OF_RANGE")]),
        ({"timeout": timedelta(0)}, [("timeout", "OUT_OF_RANGE")]),
        ({"timeout": timedelta(seconds=301)}, [("timeout", "OUT_OF_RANGE")]),
        ({"seed": -1}, [("seed", "OUT_OF_RANGE")]),
        ({"max_cost_micros": -1}, [("max_cost_micros", "OUT_OF_RANGE")]),
        ({"labels": {str(n): "" for n in range(33)}}, [("labels", "TOO_MANY")]),
        ({"labels": {"": "x"}}, [('labels[""]', "REQUIRED")]),
        ({"labels": {"k": "v" * 64}}, [('labels["k"]', "TOO_LONG")]),
        ({"mode": 9}, [("mode", "UNKNOWN_VALUE")]),
        ({"on_unknown": 9}, [("on_unknown", "UNKNOWN_VALUE")]),
        ({"mode": 2}, [("mode", "NOT_SUPPORTED_YET")]),
        ({"credential_id": "x", "api_key": None}, [("credential_id", "NOT_SUPPORTED_YET")]),
        ({"output": Output(format="webp")}, [("output.format", "NOT_SUPPORTED_YET")]),
        ({"output": Output(match_source_size=True)}, [("output.match_source_size", "NOT_SUPPORTED_YET")]),
    ],
)
async def test_each_bad_field_is_named_with_its_reason(
    changes: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert await violations(draft(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "dall-e-3"}, [FLASH, "sandbox", "dall-e-3"]),
        ({"prompts_text": "\n\n".join(["a"] * 101)}, ["101", "100"]),
        ({"prompts_text": "fine\n\n" + "x" * 10_001}, ["Prompt 2", "10,001", "10,000"]),
        ({"output": Output(aspect_ratio="7:1")}, ["7:1", "16:9", "21:9"]),
        ({"model": FLASH_31, "output": Output(image_size="8K")}, ["512, 1K, 2K, 4K"]),
        ({"output": Output(image_size="2K")}, ["one size", "leave the field out"]),
        ({"reference_image_ids": (MINE,) * 4}, ["4", "at most 3"]),
    ],
)
async def test_a_sentence_says_what_would_be_taken(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await validate(draft(**changes))
    (violation,) = caught.value.violations
    for word in words:
        assert word in violation.description


async def test_only_unsupported_fields_make_the_reason_not_supported_yet() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await validate(draft(mode=2, output=Output(format="png")))
    assert caught.value.reason == "NOT_SUPPORTED_YET"
    with pytest.raises(InvalidRequestError) as caught:
        await validate(draft(mode=2, seed=-1))
    assert caught.value.reason == "INVALID_REQUEST"


async def test_a_bad_key_is_shown_nowhere() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await validate(draft(api_key="very secret key", seed=-1))
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(caught.value.violations)
    assert "secret" not in repr(draft(api_key="very secret key"))


async def test_defaults_are_filled_in() -> None:
    request = await validate(draft(api_key=" key \n"))
    assert (request.variations, request.max_attempts) == (1, 3)
    assert request.timeout == timedelta(seconds=180)
    assert (request.mode, request.on_unknown) == (Mode.STANDARD, UnknownPolicy.RETRY)
    assert (request.seed, request.max_cost_micros) == (None, None)
    assert request.api_key == "key"
    assert request.image_count == 1


async def test_a_key_for_a_model_that_needs_none_is_dropped() -> None:
    assert (await validate(draft(model="sandbox", api_key="two words"))).api_key == ""
    assert (await validate(draft(model="sandbox", api_key=None))).api_key == ""


async def test_the_longest_prompts_and_most_of_them_are_taken() -> None:
    request = await validate(draft(**prompts(*["x" * 10_000] * 100), variations=4))
    assert request.image_count == 400


async def test_all_pictures_are_looked_up_together() -> None:
    images = MyImages()
    many = prompts(*["a"] * 100, source_image_id=MINE, reference_image_ids=(MINE, OTHERS))
    with pytest.raises(InvalidRequestError) as caught:
        await Validator(images, ManualClock()).validate(draft(**many), LOCAL_CALLER)  # type: ignore[arg-type]
    assert len(caught.value.violations) == 100
    assert images.calls == 1


async def test_the_price_counts_pictures_and_the_reservation_the_dearest_call() -> None:
    request = await validate(
        draft(
            model=FLASH_31,
            prompts_text="",
            prompts=(PromptDraft("a"), PromptDraft("aaaa", source_image_id=MINE), PromptDraft("aa", variations=4)),
            output=Output(image_size="2K"),
            variations=2,
        )
    )
    assert list_price(request) == 8 * 101_000
    alone = await validate(
        draft(model=FLASH_31, output=Output(image_size="2K"), **prompts("aaaa", source_image_id=MINE))
    )
    assert worst_call(request) == worst_call(alone)
    assert worst_call(request) > 101_000


async def test_the_hash_is_of_the_meaning() -> None:
    plain = request_hash(await validate(draft()), "f")
    # Pinned: a repeat after an upgrade of the gateway must still be recognised.
    assert plain == "bd267bddba4408a2f249a3f045b73ded54069bb731d0c2152b8eecdea6feb59d"
    same = [
        draft(request_id=new_id()),
        draft(api_key="another, the fingerprint stands for it".replace(" ", "")),
        draft(variations=1, max_attempts=3, mode=1, on_unknown=1, timeout=timedelta(seconds=180)),
        draft(**prompts("a cat")),
        draft(prompts_text="\r\n a cat\r\n"),
    ]
    for other in same:
        assert request_hash(await validate(other), "f") == plain
    different = [
        draft(prompts_text="a dog"),
        draft(variations=2),
        draft(seed=0),
        draft(max_cost_micros=0),
        draft(on_unknown=2),
        draft(prompt_prefix="p"),
        draft(prompt_suffix="p"),
        draft(labels={"a": "b"}),
        draft(workflow_id=MINE),
        draft(parent_execution_id=MINE),
        draft(timeout=timedelta(seconds=60)),
        draft(max_attempts=1),
        draft(reference_image_ids=(MINE,)),
        draft(output=Output(aspect_ratio="1:1")),
        draft(**prompts("a cat", source_image_id=MINE)),
        draft(model="gemini-3.1-flash-lite-image"),
    ]
    hashes = {request_hash(await validate(other), "f") for other in different}
    assert len(hashes | {plain}) == len(different) + 1
    assert request_hash(await validate(draft()), "g") != plain


def test_the_models_of_these_tests_are_in_the_catalogue() -> None:
    assert find_model(FLASH)
    assert find_model(FLASH_31)
