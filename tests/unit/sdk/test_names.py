from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanobatch_client import Result, ResultState
from nanobatch_client.cli.names import file_name, numbered, slug


def result(text: str = "a fox", index: int = 0, variation: int = 0, mime: str = "image/png") -> Result:
    return Result("id", "execution", index, variation, text, ResultState.COMPLETED, mime_type=mime)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red fox, asleep!", "a-red-fox-asleep"),
        ("  many\n\tspaces  ", "many-spaces"),
        ("Ein Bär, über den Straßen", "ein-bar-uber-den-strassen"),
        ("crème brûlée №5 ½", "creme-brulee-no5-1-2"),
        ("fox—snow “quoted” text…", "fox-snow-quoted-text"),
        ("日本の庭", "picture"),
        ("日本 garden", "garden"),
        ("", "picture"),
        ("---", "picture"),
        ("../../etc/passwd", "etc-passwd"),
        ("x" * 61, "x" * 60),
        ("y" * 59 + " z", "y" * 59),
    ],
)
def test_a_slug_reminds_of_its_prompt(text: str, expected: str) -> None:
    assert slug(text) == expected


@given(st.text(max_size=500))
def test_a_slug_is_always_a_safe_name(text: str) -> None:
    made = slug(text)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", made)
    assert len(made) <= 60
    assert "--" not in made
    assert slug(made) == made


@given(st.text(max_size=200), st.integers(0, 99), st.integers(0, 3))
def test_a_file_name_has_its_fixed_shape(text: str, index: int, variation: int) -> None:
    name = file_name(result(text, index, variation))
    suffix = f"-v{variation + 1}" if variation else ""
    assert name == f"{index + 1:03}-{slug(text)}{suffix}.png"


@pytest.mark.parametrize(
    ("mime", "extension"), [("image/png", "png"), ("image/jpeg", "jpg"), ("image/webp", "webp"), ("", "img")]
)
def test_the_extension_says_what_the_bytes_are(mime: str, extension: str) -> None:
    assert file_name(result(mime=mime)) == f"001-a-fox.{extension}"


def test_the_hundredth_prompt_and_its_fourth_variation() -> None:
    assert file_name(result(index=99, variation=3)) == "100-a-fox-v4.png"


def test_names_to_fall_back_on() -> None:
    assert [numbered("001-a.png", n) for n in (1, 2, 3)] == ["001-a.png", "001-a-2.png", "001-a-3.png"]
