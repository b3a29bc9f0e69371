"""Sweeps made larger: the same seeds, nothing trained twice, and what had been seen before is said."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestrator import results
from orchestrator.definition.extension import Extension, extended
from orchestrator.definition.model import definition
from orchestrator.definition.sweep_file import loads
from orchestrator.protocol import seal
from orchestrator.statistics import spending
from orchestrator.storage.folder import SweepFolder, find
from orchestrator.trial.record import read_job
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept
from tests.verbs import Called, called

Call = Callable[..., Called]
DEBUG = ("--executor", "debug", "--no-tracking")


def text(studies: int = 2, trials: int = 2, confirm: int = 2, **changes: Any) -> str:
    one = sweep_text(per_trial=4, trials=trials, confirm=confirm, **changes)
    return one.replace(f"confirm: {confirm}", f"confirm: {confirm}, studies: {studies}")


@pytest.mark.parametrize(
    "before, more, after",
    [
        ({}, Extension(studies=4), {"studies": 6}),
        ({}, Extension(seeds=3, studies=1), None),
        ({"studies": 1}, Extension(seeds=3), {"studies": 1, "confirm": 5}),
        ({"studies": 1}, Extension(studies=7), {"studies": 8}),
        ({}, Extension(trials=16), {"trials": 18}),
    ],
)
def test_a_larger_sweep_is_the_one_planned_so_and_keeps_all_seeds(before: Any, more: Extension, after: Any) -> None:
    spec = loads(text(**before))
    larger = extended(spec, more)
    for study in range(1, spec.seeds.studies + 1):
        assert larger.seeds.tune_of(study) == spec.seeds.tune_of(study)
        had = spec.seeds.confirm_of(study)
        assert larger.seeds.confirm_of(study)[: len(had)] == had
    everything = [*larger.seeds.tune, *larger.seeds.confirm]
    assert len(set(everything)) == len(everything)
    if after is not None:
        assert definition(larger) == definition(loads(text(**after)))


@pytest.mark.parametrize(
    "changes, more, why",
    [
        ({"method": "grid"}, Extension(trials=1), "a grid's points are fixed"),
        ({"tail": "racing: {level: 0.05}"}, Extension(seeds=1), "race planned all its looks"),
        ({"tail": "early_terminate: {type: pbt, eta: 2, min_budget: 25%}"}, Extension(trials=1), "drawn all at once"),
    ],
)
def test_what_cannot_be_extended_says_why(changes: dict[str, Any], more: Extension, why: str) -> None:
    method = changes.get("method", "random")
    file = text(studies=8, method=method) + changes.get("tail", "") + "\n"
    if method == "grid":
        file = file.replace("distribution: log_uniform_values, min: 0.01, max: 0.3", "values: [0.1, 0.2]")
    with pytest.raises(ValueError, match=why):
        extended(loads(file), more)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of two studies whose results nobody has seen, and one of a single study."""
    place = tmp_path_factory.mktemp("extend")
    for asked_for in ({"name": "two", "studies": 2}, {"name": "one", "studies": 1, "trials": 1, "confirm": 1}):
        name, asked = asked_for["name"], text(**asked_for)
        (place / f"{name}.yaml").write_text(asked)
        swept(asked, place / "runs")
    return place


@pytest.fixture
def runs(done: Path, tmp_path: Path) -> Path:
    shutil.copytree(done / "runs", tmp_path / "runs", symlinks=True)
    return tmp_path / "runs"


@pytest.fixture
def extend(runs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    return lambda *words: called(monkeypatch, capfd, *words, "--root", str(runs))


def stamps_of(folder: SweepFolder) -> dict[str, int]:
    return {p.parent.name: p.stat().st_mtime_ns for p in (folder.path / "trials").glob("*/result.json")}


@pytest.mark.slow
def test_nothing_is_trained_twice_and_unseen_results_cost_nothing(extend: Call, runs: Path, done: Path) -> None:
    folder = find(runs, "two")
    before = stamps_of(folder)
    said = extend("extend", "two", "--studies", "+1", "--trials", "+2", "--seeds", "1", *DEBUG, "--json")
    assert said.code == 0, said.err
    assert (said.document["look"]["seen"], said.document["alpha_spent"], said.document["exploratory"]) == ([], 0.0, [])
    after = stamps_of(folder)
    assert {t: after[t] for t in before} == before
    jobs = [read_job(folder.trial(t)) for t in after]
    tuned = [(j.arm, j.study, j.configuration) for j in jobs if j and j.stage == "tune"]
    assert len(tuned) == len(set(tuned)) == 2 * 3 * 4
    assert {arm: str(n) for arm, n in results.status(folder).studies.items()} == dict.fromkeys(("adamw", "sgd"), "3/3")
    found = extend("verify", "two")
    assert (found.code, "intact" in found.out) == (0, True), found.out
    counted = pq.read_table(folder.results / "trials.parquet").to_pandas()
    kept = counted[~counted["superseded"]] if "superseded" in counted else counted
    confirm = kept[kept["stage"] == "confirm"]
    assert set(confirm.groupby(["arm", "study"])["seed"].nunique()) == {3}
    assert len(confirm) == 2 * 3 * 3
    assert {a: len(v) for a, v in results.arm_values(folder, "loss/val").items()} == {"adamw": 3, "sgd": 3}
    again = extend("run", str(done / "two.yaml"), *DEBUG)
    assert (again.code, "nothing to run" in again.err) == (0, True)


@pytest.mark.slow
def test_one_search_becomes_several(extend: Call, runs: Path) -> None:
    """The first keeps its names; the verdict is then on methods."""
    folder = find(runs, "one")
    before = stamps_of(folder)
    assert extend("extend", "one", "--studies", "+5", *DEBUG).code == 0
    after = stamps_of(folder)
    assert {t: after[t] for t in before} == before
    assert len(after) == 6 * len(before)
    assert {"sgd-0000-s0", "sgd@2-0000-s1"} <= after.keys()
    document = extend("compare", "one", "--json").document
    assert (document["pairs"][0]["unit"] if "unit" in document["pairs"][0] else document["unit"]) == "study"
    assert document["exploratory"] == []
    assert extend("verify", "one").code == 0


@pytest.mark.slow
def test_a_look_at_the_results_is_paid_for_and_said(extend: Call, runs: Path) -> None:
    folder = find(runs, "two")
    order = [p.name for p in sorted(runs.glob("*-*"), key=lambda p: p.stat().st_mtime)]
    assert extend("status", "two").code == 0
    assert extend("best", "two").code == 0
    assert [p.name for p in sorted(runs.glob("*-*"), key=lambda p: p.stat().st_mtime)] == order, "a look is no work"
    said = extend("extend", "two", "--studies", "4", "--no-run", "--json").document
    assert (said["look"]["seen"], said["alpha_spent"]) == (["status", "best"], 0.0), "of 2 studies no p is below 0.05"
    waiting = extend("status", "two", "--json").document
    assert (waiting["state"], waiting["arms"]["sgd"]["waiting"]) == ("stopped", 4 * 4)
    assert extend("extend", "two", "--seeds", "+1", *DEBUG).code == 0
    [first, second] = seal.stamps(folder)
    assert first.startswith("4 studies added after results on the first 2 studies were seen (status, best)")
    assert first.endswith("1 look has spent 0 of 0.05")
    assert second.startswith("1 confirm seed per study added after results on the first 6 studies were seen (status)")
    document = extend("compare", "two", "--json").document
    assert document["exploratory"] == [first, second]
    assert second.endswith("2 looks have spent 0.025 of 0.05"), "the half of what was left"
    third = spending.level(0.0125, 3)
    assert document["looks"] == {"looks": 3, "alpha_spent": 0.025, "level": third, "alpha_at_most": 0.05}
    assert document["pairs"][0]["level"] == third
    shown = " ".join(extend("compare", "two").out.split())
    assert "exploratory: 4 studies added" in shown
    level = "its verdicts are found at level 0.0042, since 0.025 of 0.05 was spent before"
    assert any(level in note for note in document["notes"])
    assert level in shown
    for words in ("+1", "+2"):  # compare looked before the first of them, nobody before the second
        assert extend("extend", "two", "--seeds", words, "--no-run").code == 0
    assert seal.stamps(folder)[2].endswith("3 looks have spent 0.038 of 0.05")
    assert "with no look since" in seal.stamps(folder)[3]
    assert seal.stamps(folder)[3].endswith("nothing more is spent")


@pytest.mark.slow
def test_what_a_look_has_settled_stays_settled(extend: Call, runs: Path, done: Path) -> None:
    """An arm with too small a learning rate loses all six studies; the look that says so has paid for it."""
    asked = text(name="clear", studies=6, trials=1, confirm=1, max_lr=0.3, extra="analysis: {baseline: sgd}\n")
    low = "adamw: {optimizer: adamw, parameters: {lr: 1e-6}}"
    (done / "clear.yaml").write_text(re.sub(r"adamw: \{optimizer.*", low, asked))
    assert extend("run", str(done / "clear.yaml"), *DEBUG).code == 0
    [first] = extend("compare", "clear", "--json").document["pairs"]
    assert (first["verdict"], first["n"], "settled_by" in first) == ("worse", 6, False)
    said = extend("extend", "clear", "--studies", "+1", *DEBUG)
    assert (
        said.code,
        "its verdicts are found at level 0.0031, since 0.031 of 0.05 was spent" in " ".join(said.err.split()),
    ) == (0, True)
    document = extend("compare", "clear", "--json").document
    [pair] = document["pairs"]
    assert (pair["verdict"], pair["n"], pair["settled_by"]["look"]) == ("worse", 7, 1)
    assert pair["p_holm"] > document["looks"]["level"], "seven studies alone could not have settled it at this level"
    assert "settled at look 1, by 6 studies, p 0.031" in " ".join(extend("compare", "clear").out.split())
    asked_else = extend("compare", "clear", "--baseline", "none", "--json").document["pairs"]
    assert asked_else[0]["verdict"] == "inconclusive", "another question than the one that was settled"


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--studies", "-1"), ("--studies", "0"), ("--trials", "many")])
def test_usage(extend: Call, words: tuple[str, ...]) -> None:
    assert extend("extend", "two", *words).code == 2


def test_a_running_sweep_is_refused(extend: Call, runs: Path) -> None:
    with find(runs, "two").hold():
        said = extend("extend", "two", "--studies", "+1")
    assert (said.code, "is being run by" in said.err) == (75, True)
