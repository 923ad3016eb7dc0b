"""A selection of the soak: the same scenarios, in sizes that a commit can wait for. Promises of time are not judged here."""

from __future__ import annotations

import pytest
from soak.scenarios import SCENARIOS
from soak.stage import Ground

SELECTION = ("1", "2", "3", "8", "10", "12", "13", "15", "29")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", SELECTION, ids=[SCENARIOS[number].title.replace(" ", "-") for number in SELECTION])
async def test_a_scenario_holds(number, postgres_server, tmp_path):
    report = await SCENARIOS[number](Ground(postgres_server, tmp_path, seed=1), "commit")
    assert not report.flaws, "\n".join(report.lines)
