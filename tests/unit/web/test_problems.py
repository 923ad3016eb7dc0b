from types import SimpleNamespace

from nanobatch_client import Violation
from nanobatch_web.pages import problems

ENGLISH = SimpleNamespace(headers={"accept-language": "en"})
FRENCH = SimpleNamespace(headers={"accept-language": "fr"})
FOUND = [
    Violation("prompts[2].text", "It is empty.", "REQUIRED"),
    Violation("prompts[2].text", "It is odd.", "ODD"),
    Violation("prompts", "At most 100.", "TOO_MANY"),
    Violation("output.aspect_ratio", "Not offered.", "NOT_OFFERED"),
    Violation("reference_image_ids[0]", "There is no such picture.", "NOT_FOUND"),
    Violation("reference_image_ids[1]", "There is no such picture.", "NOT_FOUND"),
    Violation("max_cost_micros", "-1000000 is negative.", "OUT_OF_RANGE"),
    Violation("labels", "Too many.", "TOO_MANY"),
]


def test_what_is_wrong_with_a_prompt_stands_at_that_prompt() -> None:
    assert problems.by_prompt(FOUND, ENGLISH) == {"2": ["It is empty: write something, or remove it.", "It is odd."]}
    french = {"2": ["Il est vide : écrivez quelque chose ou retirez-le.", "It is odd."]}
    assert problems.by_prompt(FOUND, FRENCH) == french
    assert len(problems.elsewhere(FOUND, ENGLISH)) == 6


def test_every_other_problem_stands_at_its_field_once_and_none_is_dropped() -> None:
    assert problems.at_fields(FOUND, ENGLISH) == {
        "#nb-prompts": [
            "Prompt 3: It is empty: write something, or remove it.",
            "Prompt 3: It is odd.",
            "At most 100 prompts go into one batch.",
        ],
        "#nb-ratio": ["This model has no such aspect ratio: choose another."],
        "#nb-references": ["A reference picture is no longer there: choose it again."],
        "#nb-cap": ["Give an amount of 0 or more (at most 9 trillion dollars), or nothing."],
        "#nb-problems": ["Too many."],
    }
    assert problems.at_fields(FOUND, FRENCH)["#nb-prompts"][0].startswith("Prompt 3: Il est vide")
