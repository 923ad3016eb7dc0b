import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanobatch_client import split_prompts
from nanobatch_gateway.prompts import split_prompts as of_the_gateway


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("a\n\nb", ["a", "b"]),
        ("a\r\n \t\r\n\r\nb\nc\n", ["a", "b\nc"]),
        ("a\\n\\nb", ["a", "b"]),
        ("a\\n\\nb\nc", ["a\\n\\nb\nc"]),
        ("", []),
    ],
)
def test_paragraphs_are_found_as_the_gateway_finds_them(text: str, prompts: list[str]) -> None:
    assert split_prompts(text) == prompts


@given(st.text(alphabet=st.sampled_from(list("ab \\n\n\r\t\u200b\u00a0\ufeff"))))
def test_every_text_is_split_as_the_gateway_splits_it(text: str) -> None:
    assert split_prompts(text) == of_the_gateway(text)
