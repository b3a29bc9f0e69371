"""Sweeps that search task, recipe, groups and schedules, with lists as values, from first draw to last table."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient

from orchestrator import parquet, results, runner
from orchestrator.compare import answer
from orchestrator.compare.evidence import Evidence
from orchestrator.definition import sweep_file
from orchestrator.definition.model import sweep_id
from orchestrator.definition.parts import split
from orchestrator.definition.states import SweepState
from orchestrator.executors.debug import DebugExecutor
from orchestrator.protocol import seal
from orchestrator.scheduling.studies import learn, open_arms
from orchestrator.search.importance import importances
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.sentences import sentence
from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking.base import NoTracker
from orchestrator.tracking.mlflow import TRIAL, MlflowTracker, embedded_uri
from orchestrator.trial.training import build_training
from tests.orchestrator.interleaved import Dies, Interleaved
from tests.verbs import Called

RAMP = {"schedule": "linear", "start": 0, "end": {"min": 0.01, "max": 0.2}}
SWEEP: dict[str, Any] = {
    "schema_version": 1,
    "name": "everything",
    "task": {"name": "tests.tasks:Fit"},
    "metric": {"name": "loss/val", "goal": "minimize"},
    "arms": {
        "sam": {"parameters": {"sam_radius": RAMP}},
        "adam": {
            "optimizer": "torch.optim.Adam",
            "parameters": {"betas": {"values": [[0.9, 0.95], [0.8, 0.999]]}, "amsgrad": {"values": [True, False]}},
        },
    },
    "parameters": {
        "lr": {"distribution": "log_uniform_values", "min": 0.01, "max": 0.3},
        "width": {"values": [3, 4, 6]},
        "warmup": {"values": [0, "5%", 3]},
        "training.clip_norm": 5,
    },
    "groups": {"biases": {"match": ["*.bias"], "weight_decay": 0, "lr": {"values": [0.01, 0.1]}}},
    "constraints": ["width * lr <= 1"],
    "method": {"name": "tpe", "seed": 3, "random_share": 0.5},
    "budget": {"unit": "grad_evals", "per_trial": 8, "trials_per_arm": 4},
    "seeds": {"studies": 6, "tune": 1, "confirm": 1},
    "evaluations": 2,
}
NAMES = {"lr", "task.width", "training.warmup", "training.clip_norm", "groups.biases.weight_decay", "groups.biases.lr"}


def run(root: Path, executor: Any = None, mlflow: bool = False, **changes: Any) -> SweepFolder:
    text = yaml.safe_dump({**SWEEP, **changes}, sort_keys=False)
    definition = sweep_file.loads(text, "test.yaml")
    folder = runner.open_folder(definition, text, root, {})
    tracker: Any = NoTracker()
    if mlflow:
        tracker = MlflowTracker(
            uri=None, root=root, sweep_id=folder.sweep_id, name="everything", description="", facts={}, studies=1
        )
    with folder.hold():
        outcome = runner.run(definition, folder, executor or DebugExecutor(), tracker)
    assert outcome.state is SweepState.DONE
    return folder


def ended(folder: SweepFolder) -> dict[str, Any]:
    return {t.trial_id: (dict(t.job.values), t.result.value) for t in results.ended_trials(folder)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    return run(tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
def test_each_part_of_a_configuration_reaches_its_own(folder: SweepFolder) -> None:
    for t in results.ended_trials(folder):
        job, parts = t.job, split(t.job.values)
        own = {"betas", "amsgrad"} if job.arm == "adam" else {f"sam_radius.{k}" for k in ("schedule", "start", "end")}
        assert set(job.values) == NAMES | own
        assert job.parameters.keys() == ({"lr"} | own if job.arm == "adam" else {"lr"})
        assert job.task_parameters["width"] == job.values["task.width"]
        assert job.training["warmup"] == job.values["training.warmup"] in (0, 0.05, 0.375)
        assert job.training["clip_norm"] == 5
        assert dict(job.groups) == {"biases": {"match": ["*.bias"], **parts.groups["biases"]}}
        assert dict(job.ramps) == parts.ramps
        assert job.values["task.width"] * job.values["lr"] <= 1
        training, _ = build_training(job)
        rates = {g.get("name"): g["initial_lr"] for g in training.optimizer.param_groups}
        assert rates == {None: job.values["lr"], "biases": job.values["groups.biases.lr"]}
        assert len(training.model[0].bias) == job.values["task.width"]
    assert seal.verify(folder).problems == []


@pytest.mark.slow
def test_tables_hold_them_as_json(folder: SweepFolder) -> None:
    rows = parquet.trials_table(folder).to_pylist()
    adam = [json.loads(row["parameters"]) for row in rows if row["arm"] == "adam"]
    assert {json.dumps(p["betas"]) for p in adam} == {"[0.9, 0.95]", "[0.8, 0.999]"}
    assert {p["amsgrad"] for p in adam} == {True, False}
    assert all(p.keys() > NAMES for p in adam)


@pytest.mark.slow
def test_methods_are_compared_each_with_the_task_that_it_chose(folder: SweepFolder) -> None:
    document = answer.answer(Evidence(folder))
    (pair,) = document.pairs
    assert (document.unit, pair.n, pair.own_task) == ("study", 6, ["task.width"])
    assert "tuned with 4 trials and its own task.width" in sentence(pair, "loss/val")
    chosen = {arm: Evidence(folder).chosen(arm) for arm in ("sam", "adam")}
    apart = sum(chosen["sam"][study]["task.width"] != chosen["adam"][study]["task.width"] for study in range(1, 7))
    notes = [note for note in document.notes if note.startswith("task.width is part of what each arm tunes")]
    assert [f"in {apart} of 6 studies" in note for note in notes] == [True] * bool(apart)
    assert apart, "another seed of this test has to be taken"


def test_importance_of_lists_and_widths(folder: SweepFolder) -> None:
    evidence = Evidence(folder)
    frame = evidence.configurations["adam"]
    names = [p.name for p in evidence.tuned_parameters("adam")]
    assert {"betas", "task.width", "groups.biases.lr"} <= set(names)
    rows = [{name: row[f"param.{name}"] for name in names} for row in frame.to_dict("records")]
    found = importances(evidence.tuned_parameters("adam"), rows, list(frame["param.lr"]), evidence.goal)
    assert max(found, key=lambda name: found[name].share) == "lr"


@pytest.mark.slow
def test_verbs_show_them(folder: SweepFolder, call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*words: str) -> Any:
        return call(*words, "--root", str(folder.root))

    best = json.loads(ask("best", "@last", "--json").out)["arms"]["adam"]
    assert best["parameters"].keys() > NAMES
    assert "betas [" in ask("best", "@last").out
    table = json.loads(ask("table", "@last", "--by", "betas", "--json").out)
    assert sorted(row["value"] for row in table["rows"]) == [[0.8, 0.999], [0.9, 0.95]]
    table = json.loads(ask("table", "@last", "--by", "width", "--json").out)
    assert table["by"] == "task.width"
    assert {row["value"] for row in table["rows"]} == {3, 4, 6}
    assert ask("report", "@last").code == 0


@pytest.mark.slow
def test_one_search_an_arm_is_compared_on_one_task_only(tmp_path: Path) -> None:
    one = {
        "seeds": {"tune": 1, "confirm": 6},
        "method": {"name": "random", "seed": 1},
        "budget": {"per_trial": 4, "trials_per_arm": 2},
    }
    apart = {
        "sgd": {"parameters": {"task.width": {"values": [3]}}},
        "sam": {"parameters": {"task.width": {"values": [6]}}},
    }
    alike = {"width": 4, "lr": SWEEP["parameters"]["lr"]}
    shared = {"parameters": {"lr": alike["lr"]}, "groups": {}, "constraints": []}
    answer.answer(Evidence(run(tmp_path, **one, **(shared | {"parameters": alike}), arms={"sgd": {}, "sam": {}})))
    other = run(tmp_path, **one, **shared, name="other", arms=apart)
    with pytest.raises(
        Refused, match=r"task.width is 6 in sam, 3 in sgd: different tasks for different arms.*waive: \{GS116"
    ):
        answer.answer(Evidence(other))
    meant = {"analysis": {"waive": {"GS116": "each at the width of its paper"}}}
    document = answer.answer(Evidence(run(tmp_path, **one, **shared, name="meant", arms=apart, **meant)))
    assert "by declaration (each at the width of its paper)" in " ".join(document.notes)
    chosen = run(
        tmp_path,
        **one,
        **(shared | {"parameters": {"lr": alike["lr"], "width": {"values": [3, 4, 6, 8, 10]}}}),
        name="chosen",
        arms={"sgd": {}, "sam": {}, "adamw": {}},
    )
    widths = {arm: Evidence(chosen).chosen(arm)[1]["task.width"] for arm in ("sgd", "sam", "adamw")}
    assert len(set(widths.values())) > 1, "another seed of this test has to be taken"
    with pytest.raises(Refused, match="chosen by each arm from the same space"):
        answer.answer(Evidence(chosen))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grid", "sobol", "gp", "cmaes"])
def test_every_search_draws_lists(tmp_path: Path, method: str) -> None:
    adam = {
        "optimizer": "torch.optim.Adam",
        "parameters": {
            "betas": {"values": [[0.9, 0.95], [0.8, 0.999]]},
            "maximize": {"values": [False]},
            "capturable": {"value": False},
            "eps": {"values": [1e-8, 1e-6], "when": {"betas": [[0.9, 0.95]]}},
        },
    }
    found = run(
        tmp_path,
        arms={"adam": adam},
        parameters={"lr": {"values": [0.1]}, "width": {"values": [3, 4]}},
        constraints=[],
        method={"name": method, "seed": 0},
        budget={"per_trial": 4, **({} if method == "grid" else {"trials_per_arm": 6})},
        seeds={"tune": 1, "confirm": 1},
    )
    points = [t.job.values for t in results.ended_trials(found) if t.job.stage == "tune"]
    assert all(("eps" in p) is (p["betas"] == [0.9, 0.95]) for p in points)
    assert {json.dumps(p["betas"]) for p in points} == {"[0.9, 0.95]", "[0.8, 0.999]"}
    if method == "grid":
        assert len(points) == 2 * 2 * (2 + 1)


@pytest.mark.slow
def test_killed_and_continued_strict_replay_is_the_same(tmp_path: Path) -> None:
    changes = {
        "method": {"name": "tpe", "seed": 3, "random_share": 0.5, "replay": "strict", "lag": 2},
        "seeds": {"tune": 1, "confirm": 1},
        "budget": {"per_trial": 8, "trials_per_arm": 5},
    }
    plain = run(tmp_path / "plain", **changes)
    for attempt in range(40):
        try:
            other = run(tmp_path / "killed", Interleaved(3, attempt, die_after=4 + attempt % 3), **changes)
        except Dies:
            continue
        break
    assert ended(other) == ended(plain)


def test_a_warm_start_takes_lists(folder: SweepFolder) -> None:
    text = yaml.safe_dump({**SWEEP, "name": "later", "warm_start": [folder.sweep_id]}, sort_keys=False)
    definition = sweep_file.loads(text)
    later = runner.open_folder(definition, text, folder.root, {})
    arms = open_arms(definition, later)
    learn(definition, later, arms)
    lessons = arms["adam@1"].study._study.get_trials()  # type: ignore[attr-defined]
    assert len(lessons) == 4
    assert {t.params["betas"] for t in lessons} <= {"[0.9, 0.95]", "[0.8, 0.999]"}
    assert sweep_id(definition) != folder.sweep_id


@pytest.mark.slow
def test_mlflow_has_them_under_their_dotted_names(tmp_path: Path) -> None:
    made = run(tmp_path, mlflow=True, seeds={"tune": 1, "confirm": 1}, budget={"per_trial": 8, "trials_per_arm": 1})
    client = MlflowClient(embedded_uri(tmp_path))
    experiment = client.get_experiment_by_name("everything")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    for t in results.ended_trials(made):
        (own,) = (r for r in runs if r.data.tags.get(TRIAL) == t.trial_id)
        assert own.data.params["task.width"] == str(t.job.values["task.width"])
        assert own.data.params["groups.biases.lr"] == str(t.job.values["groups.biases.lr"])
        if t.job.arm == "adam":
            assert json.loads(own.data.params["betas"]) == t.job.values["betas"]


@pytest.mark.slow
def test_a_ramp_is_followed_within_a_trial(tmp_path: Path) -> None:
    """The radius rises from 0 with the share of the budget; a resumed trial is where it was."""
    made = run(tmp_path, seeds={"tune": 1, "confirm": 1}, budget={"per_trial": 40, "trials_per_arm": 1})
    job = next(t.job for t in results.ended_trials(made) if t.job.arm == "sam" and t.job.stage == "tune")
    training, _ = build_training(job)
    end = job.values["sam_radius.end"]
    assert [g["sam_radius"] for g in training.optimizer.param_groups] == [0, 0]
    training.advance()
    half = training.optimizer.grad_evals / 40
    assert [g["sam_radius"] for g in training.optimizer.param_groups] == pytest.approx([end * half] * 2)
    assert half == 0.5
    first = dict(job.values)
    job = replace(job, lineage=((1, {**first, "lr": 2 * first["lr"]}),))
    training, _ = build_training(job)  # as an heir in a population, whose parent had another rate
    rates = [{g.get("name"): g["initial_lr"] for g in training.optimizer.param_groups}]
    for _ in range(2):
        training.advance()
        rates.append({g.get("name"): g["initial_lr"] for g in training.optimizer.param_groups})
    own = first["groups.biases.lr"]
    assert rates == [{None: 2 * first["lr"], "biases": own}] * 2 + [{None: first["lr"], "biases": own}]
