"""Every way in which Gemini answers without a picture, told by the fake through the real google-genai client."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta

import pytest
from fakes import gemini_faults
from fakes.gemini import FakeGemini

from nanobatch_generator.domain import Charged, FailureClass, PictureRequest, ProviderError
from nanobatch_generator.providers.gemini import GeminiProvider

KEY = "AIzaSyTestTestTestTestTestTestTestTest1"
F = FailureClass
NO, YES, MAYBE = Charged.NO, Charged.YES, Charged.MAYBE


def request_for(prompt: str, *, timeout: float = 10.0, model: str = "gemini-2.5-flash-image") -> PictureRequest:
    return PictureRequest(model=model, prompt=prompt, timeout=timedelta(seconds=timeout))


async def failure_of(provider: GeminiProvider, fault: str, *, key: str = KEY, timeout: float = 10.0) -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        await provider.submit(request_for(f"a cat {{{{fault:{fault}}}}}", timeout=timeout), key)
    return raised.value


@dataclass(frozen=True)
class Row:
    fault: str
    failure_class: FailureClass
    code: str
    charged: Charged = NO
    retry_after: float | None = None


REFUSALS = [
    Row("400-field", F.BAD_REQUEST, "INVALID_REQUEST"),
    Row("400-image", F.BAD_REQUEST, "INPUT_IMAGE_UNREADABLE"),
    Row("400-too-large", F.BAD_REQUEST, "REQUEST_TOO_LARGE"),
    Row("400-key", F.KEY_INVALID, "API_KEY_INVALID"),
    Row("400-key-not-found", F.KEY_INVALID, "API_KEY_INVALID"),
    Row("400-key-expired", F.KEY_INVALID, "API_KEY_INVALID"),
    Row("400-precondition", F.KEY_UNUSABLE, "KEY_NOT_ENABLED"),
    Row("401", F.KEY_INVALID, "API_KEY_INVALID"),
    Row("402", F.KEY_UNUSABLE, "KEY_NOT_PERMITTED"),
    Row("403-leaked", F.KEY_UNUSABLE, "KEY_LEAKED"),
    Row("403-disabled", F.KEY_UNUSABLE, "KEY_NOT_ENABLED"),
    Row("403-restricted", F.KEY_UNUSABLE, "KEY_NOT_PERMITTED"),
    Row("404", F.MODEL_GONE, "MODEL_NOT_OFFERED"),
    Row("404-html", F.MODEL_GONE, "MODEL_NOT_OFFERED"),
    Row("408", F.UNKNOWN, "PROVIDER_TIMED_OUT", MAYBE),
    Row("413", F.BAD_REQUEST, "REQUEST_TOO_LARGE"),
    Row("418", F.BAD_REQUEST, "INVALID_REQUEST"),
    Row("429-minute", F.RATE_LIMITED, "RATE_LIMITED", NO, 26.0),
    Row("429-fraction", F.RATE_LIMITED, "RATE_LIMITED", NO, 20.044662),
    Row("429-now", F.RATE_LIMITED, "RATE_LIMITED", NO, 0.0),
    Row("429-message", F.RATE_LIMITED, "RATE_LIMITED", NO, 20.044662),
    Row("429-long-message", F.RATE_LIMITED, "RATE_LIMITED", NO, 3723.5),
    Row("429-millis", F.RATE_LIMITED, "RATE_LIMITED", NO, 0.2505),
    Row("429-bare", F.RATE_LIMITED, "RATE_LIMITED"),
    Row("429-header", F.RATE_LIMITED, "RATE_LIMITED", NO, 7.0),
    Row("429-array", F.RATE_LIMITED, "RATE_LIMITED", NO, 26.0),
    Row("429-day", F.QUOTA_DAY, "QUOTA_DAY_USED_UP"),
    Row("429-both", F.QUOTA_DAY, "QUOTA_DAY_USED_UP"),
    Row("429-zero", F.KEY_UNUSABLE, "QUOTA_ZERO"),
    Row("429-zero-message", F.KEY_UNUSABLE, "QUOTA_ZERO"),
    Row("499", F.UNKNOWN, "PROVIDER_TIMED_OUT", MAYBE),
    Row("500", F.TRANSIENT, "PROVIDER_ERROR"),
    Row("500-array", F.TRANSIENT, "PROVIDER_ERROR"),
    Row("500-strange", F.TRANSIENT, "PROVIDER_ERROR"),
    Row("500-binary", F.TRANSIENT, "PROVIDER_ERROR"),
    Row("502", F.TRANSIENT, "PROVIDER_ERROR"),
    Row("503", F.OVERLOADED, "PROVIDER_OVERLOADED"),
    Row("504", F.UNKNOWN, "PROVIDER_TIMED_OUT", MAYBE),
    Row("529", F.OVERLOADED, "PROVIDER_OVERLOADED"),
    Row("302", F.BAD_REQUEST, "INVALID_REQUEST"),
]
EMPTIES = [
    Row("no-image", F.EMPTY, "NO_PICTURE", MAYBE),
    Row("image-other", F.EMPTY, "NO_PICTURE", NO),
    Row("image-other-silent", F.EMPTY, "NO_PICTURE", MAYBE),
    Row("text-only", F.EMPTY, "ANSWERED_IN_WORDS", YES),
    Row("null-content", F.EMPTY, "NO_PICTURE", MAYBE),
    Row("empty-data", F.EMPTY, "NO_PICTURE", MAYBE),
    Row("no-reason", F.EMPTY, "NO_PICTURE", MAYBE),
    Row("no-candidates", F.EMPTY, "NO_ANSWER", MAYBE),
    Row("other", F.EMPTY, "NO_PICTURE", MAYBE),
    Row("malformed-response", F.EMPTY, "NO_PICTURE", MAYBE),
    Row("continuation", F.EMPTY, "NO_PICTURE", MAYBE),
    Row("invented-tomorrow", F.EMPTY, "NO_PICTURE", MAYBE),
    Row("max-tokens", F.BAD_REQUEST, "OUTPUT_LIMIT_REACHED", YES),
    Row("language", F.BAD_REQUEST, "LANGUAGE_NOT_SUPPORTED", MAYBE),
    Row("image-safety", F.BLOCKED, "CONTENT_BLOCKED", MAYBE),
    Row("image-prohibited", F.BLOCKED, "CONTENT_BLOCKED", MAYBE),
    Row("safety", F.BLOCKED, "CONTENT_BLOCKED", MAYBE),
    Row("prohibited-content", F.BLOCKED, "CONTENT_BLOCKED", MAYBE),
    Row("blocklist", F.BLOCKED, "CONTENT_BLOCKED", MAYBE),
    Row("spii", F.BLOCKED, "CONTENT_BLOCKED", MAYBE),
    Row("recitation", F.BLOCKED, "CONTENT_BLOCKED", MAYBE),
    Row("image-recitation", F.BLOCKED, "CONTENT_BLOCKED", MAYBE),
    Row("model-armor", F.BLOCKED, "CONTENT_BLOCKED", MAYBE),
    Row("prompt-blocked", F.BLOCKED, "PROMPT_BLOCKED", MAYBE),
]
DAMAGED = [
    Row("junk", F.DAMAGED, "ANSWER_UNREADABLE", MAYBE),
    Row("cut-json", F.DAMAGED, "ANSWER_UNREADABLE", MAYBE),
    Row("broken-base64", F.DAMAGED, "PICTURE_DAMAGED", YES),
    Row("cut-base64", F.DAMAGED, "PICTURE_DAMAGED", YES),
    Row("broken-base64-unmetered", F.DAMAGED, "PICTURE_DAMAGED", MAYBE),
    Row("empty-body", F.EMPTY, "NO_ANSWER", MAYBE),
]
NETWORK = [
    Row("reset", F.UNKNOWN, "CONNECTION_LOST", MAYBE),
    Row("cut", F.UNKNOWN, "CONNECTION_LOST", MAYBE),
]


@pytest.mark.parametrize("row", [*REFUSALS, *EMPTIES, *DAMAGED, *NETWORK], ids=lambda row: row.fault)
async def test_each_failure_is_told_apart_with_one_request(fake: FakeGemini, gemini: GeminiProvider, row: Row) -> None:
    failure = await failure_of(gemini, row.fault)

    assert (failure.failure_class, failure.code, failure.charged) == (row.failure_class, row.code, row.charged)
    if row.retry_after is None:
        assert failure.retry_after is None
    else:
        assert failure.retry_after is not None
        assert failure.retry_after.total_seconds() == pytest.approx(row.retry_after, abs=1e-5)
    assert failure.message[0].isupper()
    assert failure.message.endswith((".", '"'))
    assert KEY not in failure.message
    assert failure.provider_status
    assert len(fake.calls) == 1
    # What follows the words "raise ... from": a log that shows it must not meet the SDK's objects, which hold the key.
    assert failure.__cause__ is None
    assert failure.__context__ is None or failure.__suppress_context__


def test_the_table_holds_every_failure_that_the_fake_knows() -> None:
    told = {row.fault.removesuffix("-unmetered") for row in [*REFUSALS, *EMPTIES, *DAMAGED, *NETWORK]}
    assert {*gemini_faults.ERRORS, *gemini_faults.EMPTIES, *gemini_faults.RAW} <= told


@pytest.mark.parametrize("row", EMPTIES, ids=lambda row: row.fault)
async def test_a_refused_answer_records_what_it_used(fake: FakeGemini, gemini: GeminiProvider, row: Row) -> None:
    failure = await failure_of(gemini, row.fault)

    if row.charged is NO:
        assert failure.usage is None or failure.usage.cost_micros == 0
        return
    bill = fake.calls[0].usage
    assert bill is not None
    assert failure.usage is not None
    assert failure.usage.reported
    assert failure.usage.input_tokens == bill["promptTokenCount"]
    assert failure.usage.text_output_tokens == 12
    assert failure.usage.cost_micros == -(-(bill["promptTokenCount"] * 300_000 + 12 * 2_500_000) // 1_000_000)


@pytest.mark.parametrize("fault", ["no-image", "text-only", "max-tokens", "image-safety", "prompt-blocked"])
async def test_a_refused_answer_without_usage_may_have_been_charged(gemini: GeminiProvider, fault: str) -> None:
    failure = await failure_of(gemini, f"{fault}-unmetered")
    assert failure.charged is MAYBE
    assert failure.usage is None


async def test_the_models_own_words_reach_the_user(gemini: GeminiProvider) -> None:
    assert "I would rather talk about it." in (await failure_of(gemini, "text-only")).message
    assert "Support code 1234" in (await failure_of(gemini, "image-prohibited")).message
    assert "Not this." in (await failure_of(gemini, "prompt-blocked")).message
    assert "free tier is not available in your country" in (await failure_of(gemini, "400-precondition")).message


async def test_pages_of_proxies_are_not_quoted(gemini: GeminiProvider) -> None:
    assert "<" not in (await failure_of(gemini, "502")).message


@pytest.mark.parametrize("key", ["AIzaSyTestTestTestTestTestTestTestTest2", "a-key-of-no-known-shape"])
async def test_an_echoed_key_is_hidden(fake: FakeGemini, gemini: GeminiProvider, key: str) -> None:
    message = f"Quota of {key} exceeded; also of AIzaSyOtherOtherOtherOtherOtherOther12."
    gemini_faults.ERRORS["echo"] = (429, gemini_faults.quota(message=message), {})
    try:
        failure = await failure_of(gemini, "echo", key=key)
    finally:
        del gemini_faults.ERRORS["echo"]
    assert key not in failure.message
    assert "AIza" not in failure.message
    assert "Quota of [hidden] exceeded" in failure.message


@pytest.mark.parametrize("fault", ["hang", "stall"])
async def test_a_call_ends_at_its_own_deadline(fake: FakeGemini, gemini: GeminiProvider, fault: str) -> None:
    failure = await failure_of(gemini, fault, timeout=0.2)
    assert (failure.failure_class, failure.code, failure.charged) == (F.UNKNOWN, "CALL_TIMED_OUT", MAYBE)
    assert "0.2 s" in failure.message
    assert len(fake.calls) == 1


async def test_nothing_sent_is_nothing_charged() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        provider = GeminiProvider(f"http://127.0.0.1:{taken.getsockname()[1]}")
        try:
            failure = await failure_of(provider, "none")
        finally:
            await provider.aclose()
    assert (failure.failure_class, failure.code, failure.charged) == (F.TRANSIENT, "PROVIDER_UNREACHABLE", NO)
    assert "nothing was sent" in failure.message


async def test_a_host_that_does_not_exist_is_unreachable() -> None:
    provider = GeminiProvider("http://does-not-exist.invalid")
    try:
        failure = await failure_of(provider, "none")
    finally:
        await provider.aclose()
    assert (failure.failure_class, failure.charged) == (F.TRANSIENT, NO)


@pytest.mark.parametrize("key", ["", "with space", "sch\u00f6n", "line\nbreak"])
async def test_what_can_be_no_key_is_never_sent(fake: FakeGemini, gemini: GeminiProvider, key: str) -> None:
    failure = await failure_of(gemini, "none", key=key)
    assert failure.failure_class is F.KEY_INVALID
    assert fake.calls == []


async def test_a_fault_for_two_calls_is_over_at_the_third(fake: FakeGemini, gemini: GeminiProvider) -> None:
    for _ in range(2):
        assert (await failure_of(gemini, "503x2")).failure_class is F.OVERLOADED
    done = await gemini.submit(request_for("a cat {{fault:503x2}}"), KEY)
    assert done.data == fake.picture()
    assert [call.status for call in fake.calls] == [503, 503, 200]
