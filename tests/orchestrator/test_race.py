"""The race of the confirm stage: its level under the null, losers stopped, sweeps and comparisons that stay valid."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from orchestrator import results
from orchestrator.compare.answer import answer
from orchestrator.compare.evidence import Evidence
from orchestrator.definition import sweep_file
from orchestrator.definition.errors import SpecError
from orchestrator.definition.racing import Racing, look_at
from orchestrator.definition.states import Goal
from orchestrator.protocol import seal
from orchestrator.scheduling.race import Race, signed_rank
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.sentences import race_lines
from orchestrator.storage.documents import read_json
from orchestrator.storage.folder import SweepFolder
from tests.orchestrator.interleaved import Interleaved
from tests.swept import swept

RACING = Racing(level=0.05, looks=3)


def raced(values: dict[str, Any], racing: Racing = RACING, baseline: str | None = None) -> Race:
    """A whole race over given values, arm -> one for each seed; smaller is better."""
    seeds = list(range(len(next(iter(values.values())))))
    race = Race(racing, arms=list(values), units=seeds, words="seeds", goal=Goal.MINIMIZE, baseline=baseline)
    run = {arm: race.enter(arm) for arm in values}
    while run:
        for arm, more in run.items():
            for seed in more:
                race.record(arm, seed, float(values[arm][seed]))
        run = {arm: more for arm, more in race.advance()[1].items() if more}
    return race


@pytest.mark.slow
@pytest.mark.parametrize("arms, seeds", [(2, 16), (4, 20)])
def test_equal_arms_are_stopped_no_more_often_than_the_level(arms: int, seeds: int) -> None:
    rng, level, sweeps = np.random.default_rng(arms), 0.2, 300
    stopped = 0
    for _ in range(sweeps):
        shared = rng.normal(size=seeds)
        values = {str(arm): shared + rng.normal(size=seeds) for arm in range(arms)}
        stopped += bool(raced(values, Racing(level=level, looks=3)).lost)
    assert stopped / sweeps <= level + 2 * math.sqrt(level * (1 - level) / sweeps)
    assert stopped > 0  # it can stop somebody


def test_a_clear_loser_is_stopped_at_the_first_look_with_its_reason() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=20)
    values = {"good": shared, "near": shared + 0.3 * rng.normal(size=20), "bad": shared + 3 + rng.normal(size=20)}
    race = raced(values)
    assert list(race.lost) == ["bad"]
    lost, first = race.lost["bad"], race.looks[0]
    d = values["bad"][:first] - values[lost.against][:first]
    assert lost.seeds == first
    assert lost.p == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, rel=1e-12)
    assert lost.p <= lost.below == pytest.approx(0.05 / (3 * 3))
    assert f"behind {lost.against} after {first} seeds" in lost.reason
    assert raced(values, baseline="bad").lost == {}


def test_looks_begin_where_the_test_can_decide() -> None:
    for arms, seeds in ((2, 12), (3, 12), (5, 30)):
        looks, below = look_at(seeds, arms, RACING), 0.05 / (math.comb(arms, 2) * 3)
        assert looks[-1] == seeds - 1
        assert 2.0 ** (1 - looks[0]) <= below < 2.0 ** (2 - looks[0])
        assert signed_rank([1.0 + i for i in range(looks[0])]) <= below
    assert look_at(8, 2, RACING) == (7,)
    assert look_at(7, 2, RACING) == ()


TEXT = """
schema_version: 1
name: race
task: {name: "tests.tasks:Fit"}
metric: {name: loss/val, goal: minimize}
arms:
  good: {optimizer: sgd, parameters: {lr: 0.2}}
  also: {optimizer: sgd, parameters: {lr: 0.2}}
  bad: {optimizer: sgd, parameters: {lr: 0.001}}
method: {name: grid}
budget: {per_trial: 4}
seeds: {tune: 1, confirm: SEEDS}
evaluations: 2
cache: false
racing: {level: 0.05, looks: 2}
"""


def sweep(root: Path, executor: Any = None, text: str = TEXT.replace("SEEDS", "13")) -> SweepFolder:
    return swept(text, root, executor)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A raced sweep; to be looked at, not to be changed."""
    return sweep(tmp_path_factory.mktemp("race"))


@pytest.fixture
def copied(run: SweepFolder, tmp_path: Path) -> SweepFolder:
    """The same, to be changed."""
    shutil.copytree(run.root, tmp_path / "a")
    return replace(run, root=tmp_path / "a")


@pytest.mark.slow
def test_a_raced_sweep_and_its_comparison(run: SweepFolder) -> None:
    folder = run
    race = read_json(folder.race)
    assert list(race["stopped"]) == ["bad"]
    seeds = race["stopped"]["bad"]["seeds"]
    found = results.arm_values(folder, "loss/val")
    assert {arm: len(values) for arm, values in found.items()} == {"good": 13, "also": 13, "bad": seeds}
    assert results.status(folder).total.waiting == 0
    document = answer(Evidence(folder))
    assert document.seeds_of == {"good": 13, "also": 13, "bad": seeds}
    assert {(p.a, p.b): p.n for p in document.pairs} == {
        ("also", "bad"): seeds, ("also", "good"): 13, ("bad", "good"): seeds
    }  # fmt: skip
    worst = min(p.p for p in document.pairs)
    assert min(p.p_holm for p in document.pairs) == pytest.approx(3 * 3 * worst)  # three pairs, three tests
    said = race_lines(document)
    assert "bad was stopped: behind" in said[1]
    assert f"bad {seeds}" in said[0]
    assert seal.verify(folder).intact


@pytest.mark.slow
def test_a_race_depends_on_values_alone(copied: SweepFolder, tmp_path: Path) -> None:
    """Trials in another order, and a driver that died, come to the same end."""
    one, other = copied, sweep(tmp_path / "b", Interleaved(4, seed=1))
    assert read_json(one.race) == read_json(other.race)
    names = {p.name for p in (one.path / "trials").iterdir()}
    assert names == {p.name for p in (other.path / "trials").iterdir()}
    one.race.unlink()
    for path in (one.path / "trials").glob("good-*-s101?/result.json"):
        path.unlink()
    (one.path / "outcome.json").unlink()
    again = sweep(tmp_path / "a")
    assert read_json(again.race) == read_json(other.race)
    assert names == {p.name for p in (again.path / "trials").iterdir()}


@pytest.mark.slow
def test_a_missing_seed_that_no_race_explains_is_refused(copied: SweepFolder) -> None:
    folder = copied
    race = read_json(folder.race)
    race["stopped"] = {}
    folder.race.write_text(json.dumps(race))
    with pytest.raises(Refused, match="different confirm seeds"):
        answer(Evidence(folder))


@pytest.mark.parametrize("seeds, message", [("8", "8 confirm seeds cannot decide between 3 arms"), ("0", "0 confirm")])
def test_too_few_seeds_for_a_race_are_an_error(seeds: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        sweep_file.loads(TEXT.replace("SEEDS", seeds))
    enough = int(str(error.value).split("seeds.confirm to ")[1].split()[0])
    assert sweep_file.loads(TEXT.replace("SEEDS", str(enough))).racing == Racing(level=0.05, looks=2)
