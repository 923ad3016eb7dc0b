import re
import string
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanobatch_client import Prompt
from nanobatch_web import texts
from nanobatch_web.pages.files import FileError, prompts_of_file
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
        ("a.csv", "prompt;format\nUn renard, endormi;1:1\nUn phare;4:3\n", "Un renard, endormi\n\nUn phare"),
        ("a.csv", "Un renard, endormi;1:1\nUn phare, seul;4:3\n", "Un renard, endormi\n\nUn phare, seul"),
        ("a.csv", '"a fox; asleep";"1:1"\n"a ""red"" house";"4:3"\n', 'a fox; asleep\n\na "red" house'),
        ("a.csv", "a fox, asleep\t1:1\na house\t4:3\n", "a fox, asleep\n\na house"),
        ("a.csv", "a fox; asleep,1:1\na house,4:3\n", "a fox; asleep\n\na house"),
        ("a.csv", "prompt\na fox, asleep; red\na house\n", "a fox, asleep; red\n\na house"),
        ("a.csv", "prompt,ratio\r\none,1:1\r\ntwo,4:3\r\n", "one\n\ntwo"),
        ("a.csv", "prompt\rone\rtwo\r", "one\n\ntwo"),
    ],
)
def test_prompts_come_out_of_files(tmp_path: Path, name: str, content: str, prompts: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert prompts_of_file(tmp_path / name) == prompts


def test_a_text_that_is_no_unicode_is_read_as_windows_writes_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("prompt;format\nUne forêt à cinq heures, 5 €;1:1\n".encode("cp1252"))
    assert prompts_of_file(tmp_path / "a.csv") == "Une forêt à cinq heures, 5 €"


@pytest.mark.parametrize(
    ("content", "key", "facts"),
    [
        (b"\xff\xfe\x00rubbish\xff", "prompts.file_bad", {}),
        (b"\x81\x8d\xff", "prompts.file_bad", {}),
        (b"x" * (2 * 1024 * 1024 + 1), "prompts.file_large", {"size": 2}),
        (b"prompt\n\n  \n", "prompts.file_empty", {}),
        (b'prompt,ratio\n\none,1:1\n"two,4:3\n' + b"three,1:1\n" * 20_000, "prompts.file_broken", {"line": 4}),
        (b'prompt;ratio\r\none;1:1\r\n"two" and;4:3\r\n', "prompts.file_broken", {"line": 3}),
    ],
)
def test_a_file_without_prompts_is_refused_in_words(
    tmp_path: Path, content: bytes, key: str, facts: dict[str, object]
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(FileError) as refused:
        prompts_of_file(tmp_path / "a.csv")
    assert (refused.value.key, refused.value.facts) == (key, facts)
    for language in texts.LANGUAGES:
        assert texts.say(language, refused.value.key, **refused.value.facts)


@given(
    st.sampled_from(["a.csv", "a.txt"]),
    st.binary(max_size=300) | st.text(alphabet='prompt",;\t\r\n\0 é"', max_size=300).map(str.encode),
)
def test_whatever_a_file_holds_it_is_prompts_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any-{name}"
    path.write_bytes(content)
    with suppress(FileError):
        assert prompts_of_file(path).strip()


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
