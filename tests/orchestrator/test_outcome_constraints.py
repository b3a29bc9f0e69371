"""Outcome constraints: told to the sampler, never chosen, named where nothing obeys; means over tune seeds decide."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from orchestrator import parquet, results
from orchestrator.compare import answer
from orchestrator.compare.evidence import Evidence
from orchestrator.definition import model, sweep_file
from orchestrator.definition.outcome import OutcomeConstraint, OutcomeError, broken, parsed
from orchestrator.definition.states import Stage
from orchestrator.protocol.feasible import Judged
from orchestrator.statistics.pairing import Refused
from orchestrator.storage.folder import SweepFolder
from tests.orchestrator.interleaved import Dies, Interleaved
from tests.orchestrator.sweep_files import sweep_text
from tests.orchestrator.test_search import run, study
from tests.tasks import Fit

SIZES = {"lr": {"distribution": "uniform", "min": 0.01, "max": 0.3}}


class Weighed(Fit):
    """A fit whose weights are charged by their norm, so that the better a configuration fits the more it weighs."""

    METRICS: ClassVar = {**Fit.METRICS, "size/norm": Fit.METRICS["loss/val"]}

    def evaluate(self, trained: Any) -> dict[str, float]:
        norm = float(sum(p.detach().square().sum() for p in trained.parameters()) ** 0.5)
        return {**super().evaluate(trained), "size/norm": norm}


def sweep(root: Path, limit: float | str, executor: Any = None, **more: Any) -> SweepFolder:
    options: dict[str, Any] = {
        "task": {"name": "tests.orchestrator.test_outcome_constraints:Weighed", "dropout": 0.0},
        "method": {"name": "random"},
        "budget": {"trials_per_arm": 8},
        "seeds": {"tune": 2, "confirm": 2},
        "outcome_constraints": [f"size/norm <= {limit}"] if limit else [],
    }
    return run(root, executor, **{**options, **more})


def norms(folder: SweepFolder, stage: Stage = Stage.TUNE) -> dict[tuple[str, int], float]:
    """(arm, configuration) -> the mean of its norms."""
    found: dict[tuple[str, int], list[float]] = {}
    for t in results.ended_trials(folder):
        if t.job.stage is stage:
            found.setdefault((t.job.arm, t.job.configuration), []).append(t.result.metrics["size/norm"])
    return {key: sum(values) / len(values) for key, values in found.items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """The same search without a constraint."""
    return sweep(tmp_path_factory.mktemp("plain"), "")


@pytest.fixture(scope="module")
def limit(plain: SweepFolder) -> float:
    """Half of sgd's configurations obey it, and none that it liked best."""
    mine = sorted(v for (arm, _), v in norms(plain).items() if arm == "sgd")
    return (mine[3] + mine[4]) / 2


@pytest.mark.parametrize(
    "text, expected",
    [
        ("time/step_s <= 0.1", ("time/step_s", True, 0.1)),
        (" accuracy/val>=90% ", ("accuracy/val", False, 0.9)),
        ("memory/peak <= 8GiB", ("memory/peak", True, 8 * 2**30)),
        ("memory/peak <= 8 GB", ("memory/peak", True, 8e9)),
        ("time/step_s <= 5ms", ("time/step_s", True, 5e-3)),
        ("loss/val >= -1.5e-3", ("loss/val", False, -1.5e-3)),
    ],
)
def test_words(text: str, expected: tuple[str, bool, float]) -> None:
    found = parsed(text)
    assert (found.metric, found.at_most, found.limit) == pytest.approx(expected)
    assert parsed(str(found)) == found


@pytest.mark.parametrize(
    "text", ["a <= b", "a", "a < 1", "a == 1", "a <= 1 parsec", "1 <= a", "a <= 1 <= b", "a <= 1e999", ""]
)
def test_no_constraints(text: str) -> None:
    with pytest.raises(OutcomeError):
        parsed(text)


def test_the_mean_over_seeds_decides_and_what_was_not_measured_does_not_obey() -> None:
    one = OutcomeConstraint(metric="a", at_most=True, limit=2.0)
    assert broken([one], [{"a": 1.0}, {"a": 2.5}]) == (-0.25,)
    assert broken([one], [{"a": 3.0}]) == (1.0,)
    assert broken([one], [{"a": 1.0}, {}])[0] > 0
    assert broken([one], [{"a": float("nan")}])[0] > 0


@pytest.mark.slow
def test_what_breaks_a_constraint_is_never_chosen(plain: SweepFolder, limit: float, tmp_path: Path) -> None:
    folder = sweep(tmp_path, limit)
    assert norms(folder) == norms(plain)  # random draws and their trials stay what they were
    chosen = {t.job.arm: t.job.configuration for t in results.ended_trials(folder) if t.job.stage is Stage.CONFIRM}
    before = {t.job.arm: t.job.configuration for t in results.ended_trials(plain) if t.job.stage is Stage.CONFIRM}
    obeying = {key for key, norm in norms(folder).items() if norm <= limit}
    assert set(chosen.items()) <= obeying
    assert chosen != before
    table = parquet.trials_table(folder).to_pandas()
    for (arm, number), rows in table.assign(n=[t.job.configuration for t in results.ended_trials(folder)]).groupby(
        ["arm", "n"]
    ):
        assert set(rows["feasible"]) == {(arm, number) in obeying}
    assert "feasible" not in parquet.trials_table(plain).column_names
    broke = results.best(folder).outcome_constraints["sgd"]
    assert broke == Judged(configurations=8, infeasible=4, studies_without=[])
    assert results.infeasible(folder)[1] == f"sgd: 4 of 8 configurations violate size/norm <= {limit!r}"
    assert results.infeasible(plain) == []
    evidence = Evidence(folder)
    assert evidence.configurations["sgd"]["value"].isna().sum() == 4
    assert model.sweep_id(sweep_file.loads(sweep_text())) == model.sweep_id(
        sweep_file.loads(sweep_text() + "outcome_constraints: []\n")
    )


@pytest.mark.slow
def test_a_study_in_which_nothing_obeys_is_named_and_confirms_nothing(tmp_path: Path) -> None:
    folder = sweep(tmp_path, 1e-6)
    assert not [t for t in results.ended_trials(folder) if t.job.stage is Stage.CONFIRM]
    best = results.best(folder)
    assert best.arms == {}
    assert best.outcome_constraints["adamw"].studies_without == [1]
    assert any(
        "adamw: study 1 has no feasible configuration, and none to confirm" in s for s in results.infeasible(folder)
    )
    assert results.status(folder).state == "done"
    again = sweep(tmp_path, 1e-6)
    assert results.best(again) == best


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tpe", "gp", "optuna.samplers.TPESampler", "optuna.samplers.NSGAIISampler"])
def test_samplers_are_told(name: str, limit: float, tmp_path: Path) -> None:
    """A killed driver's sweep tells the same; the model proposes what obeys more often than chance does."""
    options: dict[str, Any] = {
        "method": {"name": name, "random_share": 0.5, "replay": "strict", "lag": 1},
        "budget": {"trials_per_arm": 12 if name.endswith(".TPESampler") else 8},  # it begins with ten at random
        "seeds": {"tune": 1, "confirm": 1},
        "arms": {"sgd": yaml.safe_load(sweep_text())["arms"]["sgd"]},
    }
    whole = sweep(tmp_path / "whole", limit, **options)
    with pytest.raises(Dies):
        sweep(tmp_path / "killed", limit, Interleaved(2, 0, die_after=6), **options)
    killed = sweep(tmp_path / "killed", limit, **options)
    for folder in (whole, killed):
        told = {t.number: t.constraints for t in study(folder).trials if "configuration" in t.user_attrs}
        assert all(set(found) == {f"size/norm <= {limit!r}"} for found in told.values())
        means = {n: norm for (arm, n), norm in norms(folder).items() if arm == "sgd"}
        assert {n: next(iter(c.values())) for n, c in told.items()} == pytest.approx(
            {n: v - limit for n, v in means.items()}
        )
    assert results.suggestions_digest(whole) == results.suggestions_digest(killed)
    without = sweep(tmp_path / "without", "", **options)
    assert results.suggestions_digest(whole) != results.suggestions_digest(without) or name.endswith("NSGAIISampler")


@pytest.mark.slow
def test_a_warm_start_learns_who_obeyed(plain: SweepFolder, limit: float, tmp_path: Path) -> None:
    first = sweep(tmp_path, "")
    second = sweep(tmp_path, limit, warm_start=[first.sweep_id], budget={"trials_per_arm": 2})
    taught = [t for t in study(second).trials if "warm start" in t.user_attrs]
    assert len(taught) == 8
    assert sum(next(iter(t.constraints.values())) > 0 for t in taught) == 4


def test_yaml_keeps_them() -> None:
    text = sweep_text() + yaml.safe_dump({"outcome_constraints": ["time/step_s <= 100ms"]})
    assert model.definition(sweep_file.loads(text))["outcome_constraints"] == ["time/step_s <= 0.1"]


@pytest.mark.slow
def test_an_arm_that_finds_something_in_some_studies_only_is_not_compared(limit: float, tmp_path: Path) -> None:
    seeds = {"studies": 6, "tune": 1, "confirm": 1}
    folder = sweep(tmp_path, limit - 0.05, budget={"trials_per_arm": 2}, seeds=seeds, cache=False)
    without = results.best(folder).outcome_constraints["adamw"].studies_without
    assert 0 < len(without) < 6
    with pytest.raises(Refused, match=rf"studies {', '.join(map(str, without))} of arm adamw found no configuration"):
        answer.answer(Evidence(folder))
    assert any("adamw: stud" in said and "none to confirm" in said for said in results.infeasible(folder))


@pytest.mark.slow
def test_a_metric_that_no_trial_measured_is_named(plain: SweepFolder, tmp_path: Path) -> None:
    shutil.copytree(plain.path, tmp_path / plain.sweep_id)
    folder = replace(plain, root=tmp_path)
    resolved = json.loads((folder.path / "resolved.json").read_text())
    resolved["definition"]["outcome_constraints"] = ["size/other <= 1.0", "size/norm <= 1000.0"]
    (folder.path / "resolved.json").write_text(json.dumps(resolved))
    assert results.infeasible(folder)[0] == "size/other was not measured in any trial, so no configuration is feasible"
    assert not any("size/norm was" in said for said in results.infeasible(folder))
