"""Tables and databases with something that must not count: amounts that are no numbers, studies of another goal."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest

from orchestrator.search import optuna_runs
from orchestrator.storage.foreign_runs import UnusableError
from tests.orchestrator.test_import import refused, rows


@pytest.mark.parametrize("spent", ['"2,000"', "2k", "", "0", "inf", "-5"])
def test_a_budget_that_is_no_number_is_refused(tmp_path: Path, spent: str) -> None:
    """It counted as 0 for every arm, so unequal budgets were compared 'at 0 steps each'."""
    lines = [line.replace(",1000", f",{spent}") for line in rows()]
    assert re.match(
        r"row 2: steps, what the run spent, is .*; expected a number", refused(tmp_path, lines, budget="steps")
    )


def test_other_studies_of_a_database(tmp_path: Path) -> None:
    """One in which nothing was tried is passed over; one with another goal has to be named or left out."""
    url = f"sqlite:///{tmp_path / 'o.db'}"
    one = optuna.create_study(study_name="one", storage=url, direction="maximize")
    one.tell(one.ask(), 1.0)
    other = optuna.create_study(study_name="another", storage=url, direction="minimize")
    assert len(optuna_runs.runs(url).runs) == 1
    other.tell(other.ask(), 1.0)
    with pytest.raises(UnusableError, match=r"name those that belong together: geosweep import optuna URL STUDY"):
        optuna_runs.runs(url)
    assert len(optuna_runs.runs(url, ["one"]).runs) == 1
