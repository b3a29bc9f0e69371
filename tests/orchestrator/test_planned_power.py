"""`plan --effect` and `--total-trials`: where the noise comes from, what is said to be assumed, what is proposed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.compare.earlier_noise import ALIKE, Earlier, measured, of_seeds
from orchestrator.statistics import power
from orchestrator.statistics.studies import Components, Design, power_of
from tests.orchestrator.sweep_files import sweep_text

DEBUG = ("--executor", "debug", "--no-tracking")


def write(path: Path, studies: int, *, tune: int = 1, confirm: int = 2, **changes: Any) -> str:
    seeds = f"seeds: {{studies: {studies}, tune: {tune}, confirm: {confirm}}}"
    text = sweep_text(**{"trials": 2, "per_trial": 8, **changes}).replace("seeds: {tune: 1, confirm: 3}", seeds)
    path.write_text(text)
    return str(path)


def drawn(sweep_id: str, search: tuple[int, int], parts: Components, *, studies: int, confirm: int) -> Earlier:
    """2,000 comparisons with known components, true difference 1."""
    rng = np.random.default_rng(studies)
    between = rng.normal(1, math.sqrt(parts.between), (2000, studies, 1))
    values = between + rng.normal(0, math.sqrt(parts.within), (2000, studies, confirm))
    return Earlier(sweep_id=sweep_id, search=search, differences=[list(pair) for pair in values])


@pytest.mark.slow
def test_noise_comes_from_the_likest_sweeps_and_says_what_it_assumes() -> None:
    mine, other, seeds = Components(within=4.0, between=1.0), Components(within=1.0, between=3.0), (6, 1)
    alike = drawn("alike-1", seeds, mine, studies=8, confirm=3)
    pilot = drawn("pilot-1", (3, 1), other, studies=3, confirm=3)
    single = drawn("single-1", seeds, Components(within=2.0, between=9.0), studies=1, confirm=9)

    found = measured([pilot, alike, single], seeds)
    assert found is not None
    assert (found.source, found.assumed) == ("alike-1", "")
    assert (found.components.within, found.components.between) == pytest.approx((4.0, 1.0), rel=0.1)

    found = measured([pilot, single], seeds)
    assert found is not None
    assert found.source == "pilot-1"
    assert "6 configurations on 1 tune seed varies as much as a search of 3 configurations" in found.assumed
    assert "3 studies suffice for a rough guess" in found.assumed
    assert (found.components.within, found.components.between) == pytest.approx((1.0, 3.0), rel=0.1)

    found = measured([single], seeds)
    assert found is not None
    assert (found.source, found.assumed) == ("single-1", ALIKE)
    assert (found.components.within, found.components.between) == pytest.approx((2.0, 2.0), rel=0.05)
    assert measured([], seeds) is None


def test_noise_of_other_spaces_is_used_only_where_there_is_no_other() -> None:
    """A search of one value varies less than one over decades, however many configurations both try."""
    here = drawn("here-1", (3, 1), Components(within=1.0, between=4.0), studies=8, confirm=2)
    fixed = replace(
        drawn("fixed-1", (6, 1), Components(within=1.0, between=0.0), studies=9, confirm=2), same_spaces=False
    )
    found = measured([fixed, here], (6, 1))
    assert found is not None
    assert found.source == "here-1"
    assert "spaces" not in found.assumed
    alone = measured([fixed], (6, 1))
    assert alone is not None
    assert alone.assumed == "these spaces vary the search as much as the others did"


def test_one_confirm_seed_counts_all_noise_as_the_searchs_and_tells_nothing_of_seeds() -> None:
    one = drawn("one-1", (6, 1), Components(within=2.0, between=1.0), studies=8, confirm=1)
    found = measured([one], (6, 1))
    assert found is not None
    assert (found.components.within, found.components.between) == (0.0, pytest.approx(3.0, rel=0.05))
    assert "one confirm seed each" in found.assumed
    assert of_seeds([one]) is None


@pytest.mark.slow
def test_a_pilot_of_three_studies_feeds_the_plan(call: Any, tmp_path: Path) -> None:
    pilot = write(tmp_path / "pilot.yaml", 3, name="pilot")
    assert call("run", pilot, *DEBUG).code == 0
    file = write(tmp_path / "fit.yaml", 8, confirm=1, trials=4)
    words = ("plan", file, "--effect", "0.6", "--no-calibrate", "--total-trials", "60")
    document = call(*words, "--json").document
    found = document["power"]
    assert found["sd_from"].startswith("pilot-")
    assert "varies as much as a search of 2 configurations" in found["assumed"]
    assert found["design"] == {"studies": 8, "configurations": 4, "tune": 1, "confirm": 1, "trials": 40}
    parts = Components(within=found["components"]["within"], between=found["components"]["between"])
    assert found["sd"] == pytest.approx(math.sqrt(parts.between + parts.within))
    mine = Design(studies=8, configurations=4, tune=1, confirm=1)
    assert found["power"] == pytest.approx(power_of(mine, 0.6, parts))
    assert power.power(0.6 / found["sd"], found["studies_needed"]) >= 0.8

    proposed = document["best_design"]
    assert proposed["searches"] == [{"configurations": 4, "tune": 1}, {"configurations": 2, "tune": 1}]
    assert proposed["design"]["trials"] <= 60
    assert proposed["design"]["configurations"] == 2, "the cheaper of two searches that scatter alike"
    shown = call(*words).out
    assert 0.2 < found["power"] < 0.9
    assert "(a lower bound in practice)" in shown
    assert "8 paired studies, 1 comparison" in shown
    assert f"{{studies: {proposed['design']['studies']}, tune: 1, confirm: {proposed['design']['confirm']}}}" in shown

    steps = tmp_path / "steps.yaml"
    steps.write_text(Path(file).read_text().replace("unit: grad_evals", "unit: steps"))
    other = call("plan", str(steps), "--effect", "0.6", "--no-calibrate", "--json").document["power"]
    assert other["sd_from"] == "no earlier sweep of this task", "8 steps are not 8 gradient evaluations"
    table = call("plan", str(steps), "--no-calibrate").out
    assert "8 studies per arm, 4 configurations per study; 8 steps each; 640 gradient evaluations in total" in table


def test_one_study_compares_configurations_and_is_told_what_studies_cost(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fit.yaml", 1, confirm=6)
    found = call("plan", file, "--effect", "0.01", "--sd", "0.01", "--no-calibrate", "--json").document["power"]
    assert (found["unit"], found["seeds"], found["components"], found["assumed"]) == ("seed", 6, None, "")
    assert found["for_methods"] == {"studies": 8, "more_trials": 7 * (2 + 6)}
    shown = call("plan", file, "--effect", "0.01", "--sd", "0.01", "--no-calibrate").out
    assert "between the two configurations found" in shown
    assert "says nothing about the methods; `seeds: {studies: 8}` takes 56 more trials per arm" in shown


def test_the_best_design_without_any_knowledge(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fit.yaml", 8, confirm=1, trials=4)
    found = call("plan", file, "--total-trials", "100", "--json").document["best_design"]
    assert (found["detectable"], found["power"], found["assumed"]) == (None, None, ALIKE)
    assert found["design"]["confirm"] in (1, 2, 3)  # m* = sqrt(N t) = 2
    few = call("plan", file, "--total-trials", "20", "--json").document["best_design"]
    assert (few["design"], few["least_trials"]) == (None, 6 * 5)
    assert call("plan", file, "--total-trials", "30", "--json").document["best_design"]["design"]["studies"] == 6
    assert "too few" in call("plan", file, "--total-trials", "20").out


def test_the_plan_shows_studies_and_what_a_grid_repeats(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fit.yaml", 3)
    row = call("plan", file, "--json").document["arms"]["sgd"]
    assert (row["studies"], row["configurations_per_study"], row["trials"]) == (3, 2, 12)
    shown = " ".join(call("plan", file).out.split())
    assert "3 studies per arm, 2 configurations per study; 192 gradient evaluations in total" in shown
    assert "same points" not in call("plan", file).out
    text = Path(file).read_text().replace("name: tpe", "name: grid").replace("trials_per_arm: 2", "trials_per_arm: 3")
    text = text.replace("{distribution: log_uniform_values, min: 0.01, max: 0.3}", "{values: [0.02, 0.05, 0.2]}")
    Path(file).write_text(text)
    assert "Every study trains the same points of the grid, on new seeds." in call("plan", file).out
