from types import SimpleNamespace

from nanobatch_client import Violation
from nanobatch_web.pages import problems

ENGLISH = SimpleNamespace(headers={"accept-language": "en"})
FOUND = [
    Violation("prompts[2].text", "It is empty.", "REQUIRED"),
    Violation("prompts[2].text", "It is odd.", "ODD"),
    Violation("prompts", "At most 100.", "TOO_MANY"),
    Violation("output.aspect_ratio", "Not offered.", "NOT_OFFERED"),
    Violation("reference_image_ids[0]", "There is no such picture.", "NOT_FOUND"),
    Violation("max_cost_micros", "-1000000 is negative.", "OUT_OF_RANGE"),
    Violation("labels", "Too many.", "TOO_MANY"),
]


def test_what_is_wrong_with_a_prompt_stands_at_that_prompt() -> None:
    assert problems.by_prompt(FOUND) == {"2": ["It is empty.", "It is odd."]}
    assert len(problems.elsewhere(FOUND)) == 5


def test_every_other_problem_stands_at_its_field_and_none_is_dropped() -> None:
    assert problems.at_fields(FOUND, ENGLISH) == {
        "#nb-prompts": ["Prompt 3: It is empty.", "Prompt 3: It is odd.", "At most 100."],
        "#nb-ratio": ["Not offered."],
        "#nb-references": ["There is no such picture."],
        "#nb-cap": ["Give an amount of 0 or more, or nothing."],
        "#nb-problems": ["Too many."],
    }
