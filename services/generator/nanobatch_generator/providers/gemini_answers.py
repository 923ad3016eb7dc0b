"""Reading what Gemini answers with a 200, which is not yet a picture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter
from pydantic_core import from_json

from nanobatch_catalog import TokenUsage, find_model, list_price_micros, usage_cost_micros
from nanobatch_generator.domain import Charged, Done, FailureClass, PictureRequest, ProviderError, Usage
from nanobatch_generator.providers.gemini_network import quote

# Base64 by pydantic's core: a quarter of the time of the standard library's, both alphabets, padding or not.
_BASE64: Final = TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64"))
_NOT_CHARGED: Final = re.compile(r"\bnot\b[^.]{0,40}\bcharged\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _NoPicture:
    """What a finish reason without a picture means; ``charged`` holds where usage was reported."""

    failure_class: FailureClass
    code: str
    charged: Charged
    sentence: str


_EMPTY: Final = _NoPicture(
    FailureClass.EMPTY,
    "NO_PICTURE",
    Charged.MAYBE,
    "Gemini answered without a picture. Asking again may help; a prompt that says clearly what to draw helps more.",
)
_WORDS: Final = _NoPicture(
    FailureClass.EMPTY,
    "ANSWERED_IN_WORDS",
    Charged.YES,
    "Gemini answered in words instead of a picture. Asking again may help; a prompt that describes one helps more.",
)
_NOTHING: Final = _NoPicture(
    FailureClass.EMPTY,
    "NO_ANSWER",
    Charged.MAYBE,
    "Gemini's answer was empty. Asking again usually helps.",
)
_CUT_SHORT: Final = _NoPicture(
    FailureClass.BAD_REQUEST,
    "OUTPUT_LIMIT_REACHED",
    Charged.YES,
    "Gemini reached the limit of its answer before the picture was done. Asking again will hardly help; "
    "a smaller size or a simpler prompt may.",
)
_PROMPT_BLOCKED: Final = _NoPicture(
    FailureClass.BLOCKED,
    "PROMPT_BLOCKED",
    Charged.MAYBE,
    "Gemini refused the prompt, or a picture with it, for its content. Asking again will not help: change the prompt.",
)
_CONTENT_BLOCKED: Final = _NoPicture(
    FailureClass.BLOCKED,
    "CONTENT_BLOCKED",
    Charged.MAYBE,
    "Gemini made a picture and withheld it for its content. Asking again will not help: change the prompt.",
)
_RECITATION: Final = _NoPicture(
    FailureClass.BLOCKED,
    "CONTENT_BLOCKED",
    Charged.MAYBE,
    "Gemini withheld the picture because it came too close to an existing work. Asking again will not help: "
    "change the prompt.",
)
_LANGUAGE: Final = _NoPicture(
    FailureClass.BAD_REQUEST,
    "LANGUAGE_NOT_SUPPORTED",
    Charged.MAYBE,
    "Gemini does not speak the language of this prompt. Asking again will not help: write it in another one.",
)
# Every other reason, those that Google has yet to invent among them, is an empty answer.
_BY_FINISH_REASON: Final = {
    "MAX_TOKENS": _CUT_SHORT,
    "LANGUAGE": _LANGUAGE,
    "RECITATION": _RECITATION,
    "IMAGE_RECITATION": _RECITATION,
    "SAFETY": _CONTENT_BLOCKED,
    "BLOCKLIST": _CONTENT_BLOCKED,
    "PROHIBITED_CONTENT": _CONTENT_BLOCKED,
    "SPII": _CONTENT_BLOCKED,
    "MODEL_ARMOR": _CONTENT_BLOCKED,
    "IMAGE_SAFETY": _CONTENT_BLOCKED,
    "IMAGE_PROHIBITED_CONTENT": _CONTENT_BLOCKED,
}


def read_answer(body: str, request: PictureRequest, key: str) -> Done:
    """Return the picture in the body of a 200, its bytes unchecked. Raises ProviderError where there is none.

    ``key`` is only there to be kept out of messages.
    """
    answer = _parse(body)
    usage = _usage(answer, request)
    response_id = _text(answer.get("responseId"))
    picture = _last_picture(answer)
    if picture is None:
        raise _no_picture(answer, usage, response_id, key)
    try:
        data = _BASE64.validate_strings(picture)
    except ValueError:
        # Answered, so the work was done; that the transport spoilt it does not unmake the bill.
        raise ProviderError(
            FailureClass.DAMAGED,
            "PICTURE_DAMAGED",
            "Gemini's picture arrived damaged. Asking again usually helps.",
            charged=Charged.MAYBE if usage is None else Charged.YES,
            usage=usage,
            provider_status="200",
            response_id=response_id,
        ) from None
    return Done(data=data, usage=usage or _list_price(request), response_id=response_id)


def _parse(body: str) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        answer = from_json(body)
    except ValueError:
        # A 200 cut short or written over by a proxy: the provider had answered, so this is damage, not an outcome
        # unknown. Nobody can read what it cost.
        raise ProviderError(
            FailureClass.DAMAGED,
            "ANSWER_UNREADABLE",
            "Gemini's answer arrived cut short or garbled. Asking again usually helps.",
            charged=Charged.MAYBE,
            provider_status="200",
        ) from None
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    return answer if isinstance(answer, dict) else {}


def _last_picture(answer: dict[str, Any]) -> str | None:
    """Return the last picture that is no thought: models that think send drafts before it, marked and unmarked."""
    found = None
    for part in _parts(answer):
        blob = part.get("inlineData")
        if isinstance(blob, dict) and not part.get("thought"):
            found = _text(blob.get("data")) or found
    return found


def _parts(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    # null, {} and [] were all seen in each of these places.
    for candidate in _dicts(answer.get("candidates")):
        content = candidate.get("content")
        if isinstance(content, dict):
            yield from _dicts(content.get("parts"))


def _no_picture(answer: dict[str, Any], usage: Usage | None, response_id: str, key: str) -> ProviderError:
    candidate = next(_dicts(answer.get("candidates")), None)
    reason = _text(candidate.get("finishReason")) if candidate else ""
    feedback = answer.get("promptFeedback")
    block_reason = _text(feedback.get("blockReason")) if isinstance(feedback, dict) else ""
    said = _text(candidate.get("finishMessage")) if candidate else ""
    words = " ".join(_text(part.get("text")) for part in _parts(answer) if not part.get("thought")).strip()
    if reason in _BY_FINISH_REASON:
        kind = _BY_FINISH_REASON[reason]
    elif isinstance(feedback, dict) and block_reason:
        kind, reason = _PROMPT_BLOCKED, block_reason
        said = _text(feedback.get("blockReasonMessage"))
    elif words:
        kind = _WORDS
    else:
        kind = _NOTHING if candidate is None else _EMPTY
    # Usage that was reported is spent; where none was, nobody knows. Only the provider's own word makes it free.
    charged = kind.charged if usage is not None else Charged.MAYBE
    if _NOT_CHARGED.search(said):
        charged = Charged.NO
        usage = replace(usage, cost_micros=0) if usage is not None else None
    explanation = said or words
    message = f'{kind.sentence} It said: "{quote(explanation, key)}"' if explanation else kind.sentence
    return ProviderError(
        kind.failure_class,
        kind.code,
        message,
        charged=charged,
        usage=usage,
        provider_status=f"200 {reason}".strip(),
        response_id=response_id,
    )


def _usage(answer: dict[str, Any], request: PictureRequest) -> Usage | None:
    """Return the reported usage with its price, or None where the provider reported none.

    Only the total is right at all times (thoughts go missing, or are counted twice), so text is what it leaves over.
    """
    reported = answer.get("usageMetadata")
    if not isinstance(reported, dict):
        return None
    prompt = _count(reported.get("promptTokenCount"))
    candidates = _count(reported.get("candidatesTokenCount")) + _count(reported.get("thoughtsTokenCount"))
    total = _count(reported.get("totalTokenCount")) or prompt + candidates
    if total == 0:
        return None
    details = list(_dicts(reported.get("candidatesTokensDetails")))
    image = sum(_count(detail.get("tokenCount")) for detail in details if detail.get("modality") == "IMAGE")
    if image == 0 and _last_picture(answer) is not None:
        # A picture, and no word of what part of the total it was: the price of a picture is the better guess.
        return replace(_list_price(request), input_tokens=prompt, text_output_tokens=0)
    tokens = TokenUsage(
        input_tokens=prompt, text_output_tokens=max(0, total - prompt - image), image_output_tokens=image
    )
    model = find_model(request.model.removeprefix("models/"))
    return Usage(
        input_tokens=tokens.input_tokens,
        text_output_tokens=tokens.text_output_tokens,
        image_output_tokens=tokens.image_output_tokens,
        cost_micros=usage_cost_micros(model, tokens) if model else 0,
        reported=True,
    )


def _list_price(request: PictureRequest) -> Usage:
    model = find_model(request.model.removeprefix("models/"))
    if model is None:
        return Usage()
    size = request.image_size if request.image_size in model.image_sizes else ""
    return Usage(cost_micros=list_price_micros(model, size))


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
