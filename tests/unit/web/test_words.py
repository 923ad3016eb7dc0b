import re
import string
from datetime import timedelta
from pathlib import Path

import pytest

from nanobatch_client import Prompt
from nanobatch_web import texts
from nanobatch_web.pages.files import prompts_of_file
from nanobatch_web.pages.form import Form
from nanobatch_web.pages.money import dollars, duration, micros
from nanobatch_web.texts.catalogue import TEXTS


def test_every_text_takes_the_same_facts_in_both_languages() -> None:
    for key, both in TEXTS.items():
        english, french = ({name for _, name, _, _ in string.Formatter().parse(text) if name} for text in both)
        assert english == french, key


def test_every_code_of_a_failed_result_has_a_sentence_of_its_own() -> None:
    documented = (Path(__file__).parents[3] / "docs/api.md").read_text()
    section = documented.partition("### Result codes")[2].partition("These codes never fail a result")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    codes = {code for row in rows for code in re.findall(r"`([A-Z_]+)`", row)}
    assert len(codes) > 25
    assert {f"why.{code}" for code in codes} == {key for key in TEXTS if key.startswith("why.")}


@pytest.mark.parametrize(
    ("header", "language"),
    [("fr-FR,fr;q=0.9", "fr"), ("de, fr;q=0.5, en;q=0.8", "en"), ("", "en"), ("xx;q=nonsense", "en"), ("FR", "fr")],
)
def test_the_browser_chooses_the_language(header: str, language: str) -> None:
    assert texts.language_of({"accept-language": header}) == language


@pytest.mark.parametrize(
    ("amount", "text"), [(39_000, "$0.039"), (3_900_000, "$3.90"), (0, "$0.00"), (100_800, "$0.1008")]
)
def test_money_has_the_decimals_it_needs(amount: int, text: str) -> None:
    assert dollars(amount) == text


def test_a_cap_in_dollars_is_exact() -> None:
    assert micros(0.1) == 100_000
    assert micros(None) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (59, "59 s"),
        (59.6, "1 min"),
        (150, "2 min"),
        (3569, "59 min"),
        (3571, "1 h 0 min"),
        (4800, "1 h 20 min"),
        (7171, "2 h 0 min"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("name", "content", "prompts"),
    [
        ("a.txt", "one\n\ntwo", "one\n\ntwo"),
        ("a.csv", 'prompt,ratio\none,1:1\n"two, still two",4:3\n', "one\n\ntwo, still two"),
        ("a.csv", "ratio,Prompt\n1:1,one\n", "one"),
        ("a.csv", "one\ntwo\n", "one\n\ntwo"),
        ("a.csv", 'prompt\n"two paragraphs\n\nof one prompt"\nthree\n', "two paragraphs\nof one prompt\n\nthree"),
        ("a.csv", "", ""),
    ],
)
def test_prompts_come_out_of_files(tmp_path: Path, name: str, content: str, prompts: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert prompts_of_file(tmp_path / name) == prompts


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00rubbish\xff")
    with pytest.raises(ValueError, match="decode"):
        prompts_of_file(tmp_path / "a.txt")


def test_a_form_survives_the_browser() -> None:
    form = Form(
        "sandbox", ("a", "b"), ("ID",), "1:1", "2K", 3, 5, (Prompt("b", "SOURCE", ("OWN",)), Prompt("c", variations=4))
    )
    assert Form.of(form.stored()) == form
    assert Form.of({}) == Form("", ())
    assert Form.of({"own": "nonsense"}).own == ()


def test_pictures_of_their_own_go_with_the_prompts_in_their_order() -> None:
    one, other = Prompt("the same", "FIRST"), Prompt("the same", "SECOND")
    form = Form("sandbox", ("new", "the same", "the same", "the same"), own=(one, other, Prompt("gone", "THIRD")))
    assert form.whole() == ["new", one, other, "the same"]
