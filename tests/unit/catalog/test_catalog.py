from datetime import date, timedelta

import pytest

from nanobatch_catalog import (
    CATALOG_DATE,
    TokenUsage,
    find_model,
    lifecycle_warnings,
    list_models,
    list_price_micros,
    output_token_limit,
    usage_cost_micros,
    worst_case_micros,
)

FLASH = find_model("gemini-2.5-flash-image")
assert FLASH is not None


def test_the_seeds_figures():
    assert list_price_micros(FLASH) == 39_000
    assert usage_cost_micros(FLASH, TokenUsage(image_output_tokens=1290)) == 38_700
    assert usage_cost_micros(FLASH, TokenUsage(input_tokens=12, image_output_tokens=1290)) == 38_704  # 3.6 rounded up


def test_a_fraction_of_a_micro_is_rounded_up_per_call():
    assert usage_cost_micros(FLASH, TokenUsage(input_tokens=1)) == 1
    assert usage_cost_micros(FLASH, TokenUsage()) == 0


def test_models_name_limits_and_prices_for_every_size():
    for model in list_models(CATALOG_DATE):
        assert model.aspect_ratios
        assert {price.image_size for price in model.prices} == set(model.image_sizes or ("",))
        if model.successor:
            assert find_model(model.successor) is not None
        for size in model.image_sizes or ("",):
            worst = worst_case_micros(model, image_size=size, prompt_characters=100, input_images=0)
            tokens = next(price.image_tokens for price in model.prices if price.image_size == size)
            assert worst >= usage_cost_micros(model, TokenUsage(100, 0, tokens))


def test_the_worst_case_covers_every_answer_that_fits_in_the_output_limit_sent():
    limit = output_token_limit(FLASH)
    assert 1290 < limit < 2 * 1290  # room for one picture and some words, never for two pictures
    worst = worst_case_micros(FLASH, prompt_characters=1000, input_images=3)
    assert worst >= usage_cost_micros(FLASH, TokenUsage(1000 + 3 * 258, limit - 1290, 1290))


def test_dates_warn_and_reorder_and_never_remove():
    before, after = date(2026, 6, 1), date(2026, 11, 21)
    assert {model.id for model in list_models(before)} == {model.id for model in list_models(after)}
    assert list_models(before)[0].id == "gemini-2.5-flash-image"
    assert list_models(after)[-1].retirement is not None


@pytest.mark.parametrize(("days", "warned"), [(61, False), (60, True), (0, True), (-100, True)])
def test_a_retirement_is_announced_sixty_days_ahead_with_successor_and_price(days, warned):
    warnings = lifecycle_warnings(FLASH, FLASH.retirement - timedelta(days=days))
    assert bool(warnings) is warned
    if warned:
        assert "gemini-3.1-flash-image" in warnings[0]
        assert "$0.067" in warnings[0]
