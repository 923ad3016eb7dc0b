"""From a pasted text to prompts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanobatch_gateway.prompts import control_character, is_blank, split_prompts, whole_prompt

_CHARS = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\\\ufeff")
LINES = st.text(_CHARS, min_size=1, max_size=20).filter(lambda line: not is_blank(line))
PROMPTS = st.lists(LINES, min_size=1, max_size=4).map("\n".join).map(str.strip)
BLANK_LINES = st.lists(st.sampled_from(["", " ", "\t", "\u3000", "\u200b", "  \u2003"]), min_size=1, max_size=3)


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("", []),
        (" \n\t\n\u3000\n\u200b", []),
        ("a cat", ["a cat"]),
        ("a cat\n\na dog", ["a cat", "a dog"]),
        ("a cat\r\n\r\na dog", ["a cat", "a dog"]),
        ("a cat\r\ra dog", ["a cat", "a dog"]),
        ("a cat\n \t \na dog", ["a cat", "a dog"]),
        ("a cat\r\n   \r\na dog\r\n", ["a cat", "a dog"]),
        ("a cat\n\u3000\u2003\na dog", ["a cat", "a dog"]),
        ("\n\n\na cat\n\n\n\n\na dog\n\n\n", ["a cat", "a dog"]),
        ("a cat\non a mat\n\na dog", ["a cat\non a mat", "a dog"]),
        ("  a cat  \n\n  a dog", ["a cat", "a dog"]),
        ("\ufeffa cat\n\na dog", ["a cat", "a dog"]),
        (r"a cat\n\na dog", ["a cat", "a dog"]),
        (r"a cat\n \na dog", ["a cat", "a dog"]),
        (r"a cat\non a mat\n\na dog", ["a cat\non a mat", "a dog"]),
        (r"\n\na cat\n\n\n\n", ["a cat"]),
        (r"the folder C:\new", [r"the folder C:\new"]),
        ("a cat\\n\\na dog\nand a bird", ["a cat\\n\\na dog\nand a bird"]),
    ],
)
def test_paragraphs_become_prompts(text: str, prompts: list[str]) -> None:
    assert split_prompts(text) == prompts


@given(st.lists(PROMPTS, min_size=1, max_size=8), st.data())
def test_joined_by_any_blank_lines_prompts_come_back(prompts: list[str], data: st.DataObject) -> None:
    text = prompts[0]
    for prompt in prompts[1:]:
        text += "\n" + "\n".join(data.draw(BLANK_LINES)) + "\n" + prompt
    assert split_prompts(text) == prompts


@given(st.text())
def test_no_prompt_is_ever_empty_or_untrimmed(text: str) -> None:
    for prompt in split_prompts(text):
        assert not is_blank(prompt)
        assert prompt == prompt.strip()


@given(st.text(st.sampled_from("ab \n\t\\n")))
def test_the_kind_of_line_break_does_not_matter(text: str) -> None:
    assert split_prompts(text.replace("\n", "\r\n")) == split_prompts(text) == split_prompts(text.replace("\n", "\r"))


@given(st.text())
def test_splitting_again_changes_nothing(text: str) -> None:
    prompts = split_prompts(text.replace("\\", ""))
    assert split_prompts("\n\n".join(prompts)) == prompts


@given(st.integers(0, 150))
def test_as_many_prompts_come_out_as_went_in(count: int) -> None:
    assert len(split_prompts("\n\n".join(["a cat"] * count))) == count


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tabs\tand\nline\r\nbreaks are fine", None),
        ("a\0b", "U+0000"),
        ("a\x1bb", "U+001B"),
        ("a\x85b", "U+0085"),
        ("👩\u200d👧", None),
    ],
)
def test_control_characters_are_named(text: str, found: str | None) -> None:
    assert control_character(text) == found


def test_prefix_and_suffix_stand_one_space_away() -> None:
    assert whole_prompt("photo of", "a cat", "at night") == "photo of a cat at night"
    assert whole_prompt("", "a cat", "") == "a cat"
