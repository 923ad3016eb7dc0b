"""Calls that succeed, what they send, and the free key check."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta

import pytest
from fakes.gemini import FakeGemini
from fakes.pictures import noise_jpeg, noise_png

from nanobatch_generator.domain import FailureClass, InputImage, PictureRequest, ProviderError
from nanobatch_generator.providers.gemini import GeminiProvider
from nanobatch_runtime.testing import eventually

KEY = "AIzaSyTestTestTestTestTestTestTestTest1"
MODEL = "gemini-2.5-flash-image"


def request_for(prompt: str = "a cat", **more) -> PictureRequest:
    return PictureRequest(**({"model": MODEL, "prompt": prompt, "timeout": timedelta(seconds=10)} | more))


async def test_a_picture_comes_whole_with_its_cost(fake: FakeGemini, gemini: GeminiProvider) -> None:
    done = await gemini.submit(request_for("x" * 40), KEY)

    assert done.data == fake.picture()
    assert done.response_id == "fake-0"
    usage = done.usage
    assert (usage.input_tokens, usage.text_output_tokens, usage.image_output_tokens) == (10, 0, 1290)
    assert usage.cost_micros == 38_703  # 1290 x $30 + 10 x $0.30 a million
    assert usage.reported


async def test_the_request_says_everything_and_no_more(fake: FakeGemini, gemini: GeminiProvider) -> None:
    first, second = noise_png(2_000, (8, 8)), noise_jpeg((16, 16))
    await gemini.submit(
        request_for(
            "Edit: grün ✓",
            input_images=(InputImage("image/png", first), InputImage("image/jpeg", second)),
            aspect_ratio="16:9",
            seed=7,
            max_output_tokens=1802,
            timeout=timedelta(seconds=42.5),
        ),
        KEY,
    )

    call = fake.calls[0]
    assert call.path == f"/v1beta/models/{MODEL}:generateContent"
    assert call.key == KEY
    assert call.body["generationConfig"] == {
        "responseModalities": ["TEXT", "IMAGE"],
        "imageConfig": {"aspectRatio": "16:9"},
        "seed": 7,
        "maxOutputTokens": 1802,
    }
    assert set(call.body) == {"contents", "generationConfig"}
    (content,) = call.body["contents"]
    assert content["role"] == "user"
    text, *pictures = content["parts"]
    assert text == {"text": "Edit: grün ✓"}
    sent = [
        (part["inlineData"]["mime_type"], base64.urlsafe_b64decode(part["inlineData"]["data"])) for part in pictures
    ]
    assert sent == [("image/png", first), ("image/jpeg", second)]
    assert call.headers["x-server-timeout"] == "48"


async def test_what_was_not_asked_for_is_not_sent(fake: FakeGemini, gemini: GeminiProvider) -> None:
    await gemini.submit(request_for(), KEY)
    assert fake.calls[0].body["generationConfig"] == {"responseModalities": ["TEXT", "IMAGE"]}


async def test_a_size_and_its_price(fake: FakeGemini, gemini: GeminiProvider) -> None:
    request = request_for(model="gemini-3.1-flash-image", image_size="2K", aspect_ratio="1:4")
    done = await gemini.submit(request, KEY)
    assert fake.calls[0].body["generationConfig"]["imageConfig"] == {"aspectRatio": "1:4", "imageSize": "2K"}
    assert done.data.startswith(b"\xff\xd8")
    assert done.usage.image_output_tokens == 1680


@pytest.mark.parametrize(
    "variant", ["thought-draft", "unmarked-draft", "text-around", "wrong-mime", "extra-fields", "url-safe"]
)
async def test_the_last_picture_that_is_no_thought_is_the_picture(
    fake: FakeGemini, gemini: GeminiProvider, variant: str
) -> None:
    done = await gemini.submit(request_for(f"a cat {{{{fault:{variant}}}}}"), KEY)
    assert done.data == fake.picture()


async def test_only_the_total_is_believed(fake: FakeGemini, gemini: GeminiProvider) -> None:
    done = await gemini.submit(request_for("a cat {{fault:thinking-usage}}"), KEY)
    assert (done.usage.image_output_tokens, done.usage.text_output_tokens) == (1290, 305)


@pytest.mark.parametrize("variant", ["no-usage", "no-details"])
async def test_without_usage_a_picture_costs_its_list_price(gemini: GeminiProvider, variant: str) -> None:
    done = await gemini.submit(request_for(f"a cat {{{{fault:{variant}}}}}"), KEY)
    assert done.usage.cost_micros == 39_000
    assert not done.usage.reported


async def test_a_cut_picture_is_handed_on_for_the_decoder_to_find(fake: FakeGemini, gemini: GeminiProvider) -> None:
    done = await gemini.submit(request_for("a cat {{fault:cut-picture}}"), KEY)
    assert fake.picture().startswith(done.data)


async def test_a_large_picture_comes_whole_too() -> None:
    async with FakeGemini(picture_bytes=8_000_000) as large:
        provider = GeminiProvider(large.url)
        done = await provider.submit(request_for(), KEY)
        await provider.aclose()
        assert done.data == large.picture()
        assert len(done.data) == 8_000_000


async def test_no_environment_redirects_or_supplies_a_key(fake: FakeGemini, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "GOOGLE_API_KEY": "stray-key",
        "GEMINI_API_KEY": "stray-key",
        "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:9",
        "GOOGLE_VERTEX_BASE_URL": "http://127.0.0.1:9",
        "GOOGLE_GENAI_API_VERSION": "v9",
        "GOOGLE_GENAI_USE_VERTEXAI": "true",
        "GOOGLE_GENAI_USE_ENTERPRISE": "true",
        "GOOGLE_CLOUD_PROJECT": "stray",
        "GOOGLE_CLOUD_LOCATION": "stray",
        "GOOGLE_GENAI_HTTP_CLIENT": "httpx2",
    }.items():
        monkeypatch.setenv(name, value)
    provider = GeminiProvider(fake.url)
    try:
        await provider.submit(request_for(), KEY)
        assert (await provider.check_key(MODEL, KEY)).valid
    finally:
        await provider.aclose()
    assert [(call.key, call.path) for call in fake.calls] == [(KEY, f"/v1beta/models/{MODEL}:generateContent")]
    assert fake.checks == [KEY]


async def test_many_keys_share_one_client_and_never_mix(fake: FakeGemini, gemini: GeminiProvider) -> None:
    keys = [f"key-{number}" for number in range(20)]
    await asyncio.gather(*(gemini.submit(request_for(f"for {key} {{{{latency:0.05}}}}"), key) for key in keys))
    assert {call.prompt.split()[1] for call in fake.calls} == set(keys)
    assert all(call.prompt.split()[1] == call.key for call in fake.calls)


async def test_a_cancelled_call_closes_its_connection(fake: FakeGemini, gemini: GeminiProvider) -> None:
    task = asyncio.create_task(gemini.submit(request_for("a cat {{fault:hang}}"), KEY))
    await eventually(lambda: fake.in_flight == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: fake.in_flight == 0)
    assert not fake.calls[0].finished


async def test_warming_up_sends_nothing(fake: FakeGemini, gemini: GeminiProvider) -> None:
    await gemini.warm_up()
    assert fake.calls == []


# -- key check ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [MODEL, f"models/{MODEL}"])
async def test_a_good_key_with_its_model(fake: FakeGemini, gemini: GeminiProvider, model: str) -> None:
    check = await gemini.check_key(model, KEY)
    assert (check.valid, check.model_available, check.message) == (True, True, "")
    assert fake.calls == []
    assert fake.checks == [KEY]


@pytest.mark.parametrize("key", ["bad-key", "leaked-key", "", "no\nkey"])
async def test_a_key_that_is_refused(gemini: GeminiProvider, key: str) -> None:
    check = await gemini.check_key(MODEL, key)
    assert not check.valid
    assert "aistudio.google.com" in check.message


@pytest.mark.parametrize("fault", ["400-key", "401", "403-disabled", "403-restricted", "400-precondition"])
async def test_every_refusal_of_a_key_is_a_verdict(fake: FakeGemini, gemini: GeminiProvider, fault: str) -> None:
    fake.check_fault = fault
    assert not (await gemini.check_key(MODEL, KEY)).valid


async def test_a_model_that_is_gone(fake: FakeGemini, gemini: GeminiProvider) -> None:
    del fake.models[MODEL]
    check = await gemini.check_key(MODEL, KEY)
    assert check.valid
    assert not check.model_available
    assert "another model" in check.message


@pytest.mark.parametrize(
    ("fault", "failure_class"),
    [
        ("500", FailureClass.TRANSIENT),
        ("502", FailureClass.TRANSIENT),
        ("504", FailureClass.TRANSIENT),
        ("503", FailureClass.OVERLOADED),
        ("429-minute", FailureClass.RATE_LIMITED),
        ("429-day", FailureClass.RATE_LIMITED),
        ("junk", FailureClass.TRANSIENT),
    ],
)
async def test_where_nobody_can_tell_the_check_fails(
    fake: FakeGemini, gemini: GeminiProvider, fault: str, failure_class: FailureClass
) -> None:
    fake.check_fault = fault
    with pytest.raises(ProviderError) as raised:
        await gemini.check_key(MODEL, KEY)
    assert raised.value.failure_class is failure_class
    assert raised.value.charged.name == "NO"
    assert KEY not in raised.value.message


async def test_an_unreachable_provider_is_no_verdict_on_the_key() -> None:
    provider = GeminiProvider("http://127.0.0.1:9")
    with pytest.raises(ProviderError) as raised:
        await provider.check_key(MODEL, KEY)
    await provider.aclose()
    assert raised.value.failure_class is FailureClass.TRANSIENT


async def test_the_known_key_without_quota_passes_the_check_and_fails_the_call(gemini: GeminiProvider) -> None:
    assert (await gemini.check_key(MODEL, "free-key")).valid
    with pytest.raises(ProviderError) as raised:
        await gemini.submit(request_for(), "free-key")
    assert raised.value.code == "QUOTA_ZERO"
