"""Several studies of each arm share nothing and survive anything; budgets, races and warm starts know them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestrator import parquet, reconcile, results, runner
from orchestrator.definition import model, sweep_file
from orchestrator.definition.states import SweepState
from orchestrator.protocol import seal
from orchestrator.scheduling.studies import open_arms
from orchestrator.storage.documents import read_json
from orchestrator.storage.folder import SweepFolder
from tests.orchestrator.interleaved import Dies, Interleaved
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import ran

pytestmark = pytest.mark.slow

METHODS = ("grid", "random", "sobol", "tpe", "gp", "cmaes")


def text_of(*lines: str, studies: int = 3, tune: int = 1, confirm: int = 1, **changes: Any) -> str:
    seeds = f"seeds: {{studies: {studies}, tune: {tune}, confirm: {confirm}}}"
    text = sweep_text(**{"per_trial": 8, "trials": 2, **changes}).replace("seeds: {tune: 1, confirm: 3}", seeds)
    if changes.get("method") == "grid":
        text = text.replace("{distribution: log_uniform_values, min: 0.01, max: 0.3}", "{values: [0.02, 0.2]}")
    return "\n".join([text, *lines])


def run(root: Path, text: str, executor: Any = None) -> tuple[SweepFolder, runner.Outcome]:
    return ran(text, root, executor)


def searched(folder: SweepFolder) -> dict[str, list[Any]]:
    """Study -> what its storage holds, in order."""
    definition = sweep_file.load(folder.path / "sweep.yaml")
    return {
        name: [[dict(c.parameters), c.state, c.value] for c in arm.study.configurations()] + [arm.study.chosen()]
        for name, arm in open_arms(definition, folder).items()
    }


def ended(folder: SweepFolder) -> dict[str, Any]:
    return {t.trial_id: (t.result.state, t.result.value, t.result.grad_evals) for t in results.ended_trials(folder)}


@pytest.mark.parametrize("method", METHODS)
def test_every_study_has_its_own_search_and_seeds(tmp_path: Path, method: str) -> None:
    folder, outcome = run(tmp_path, text_of(method=method))
    assert outcome.state is SweepState.DONE
    records = results.ended_trials(folder)
    assert len(records) == 2 * 3 * (2 + 1)
    seeds = {
        (t.job.arm, t.job.study): {r.job.seed for r in records if r.job.arm == t.job.arm and r.job.study == t.job.study}
        for t in records
    }
    for arm in ("sgd", "adamw"):
        mine = [seeds[arm, study] for study in (1, 2, 3)]
        assert [len(s) for s in mine] == [2, 2, 2]
        assert len(set.union(*mine)) == 6, "no two studies share a seed"
        assert mine == [seeds["sgd", study] for study in (1, 2, 3)], (
            "study r of an arm is paired with study r of another"
        )
    points = [[c[0] for c in found[:-1]] for name, found in searched(folder).items() if name.startswith("sgd")]
    same = [a == b for a, b in pairwise(points)]
    assert all(same) if method == "grid" else not any(same)
    assert set(parquet.trials_table(folder)["study"].to_pylist()) == {1, 2, 3}
    assert seal.verify(folder).intact


@pytest.mark.parametrize("method", [pytest.param("random", marks=pytest.mark.long), "tpe", "gp", "cmaes"])
def test_what_one_study_finds_changes_no_suggestion_of_another(tmp_path: Path, method: str) -> None:
    """Every trial of study 2 fails in one of two sweeps: studies 1 and 3 search as before, study 2 does not."""
    given = text_of(method=method, trials=3, max_failed=9)
    given = "\n".join(line for line in given.splitlines() if "  adamw:" not in line)
    other = given.replace("fail_at: -1, fail_seed: -1", "fail_at: 2, fail_seed: 1")
    plain, changed = (searched(run(tmp_path / name, t)[0]) for name, t in (("plain", given), ("changed", other)))
    assert len(plain) == 3
    for name, found in plain.items():
        if "@2" not in name:
            assert found == changed[name]
        elif method != "random":
            assert [c[0] for c in found[:-1]] != [c[0] for c in changed[name][:-1]], "what it finds changes nothing"


def test_a_further_study_changes_nothing_of_the_others(tmp_path: Path) -> None:
    few, more = (run(tmp_path / str(n), text_of(studies=n))[0] for n in (2, 3))
    known = ended(few)
    assert known == {trial: row for trial, row in ended(more).items() if trial in known}


def test_one_study_is_the_sweep_of_before() -> None:
    plain = sweep_file.loads(sweep_text())
    assert model.sweep_id(plain) == model.sweep_id(
        sweep_file.loads(sweep_text().replace("{tune: 1, confirm: 3}", "{studies: 1, tune: 1, confirm: 3}"))
    )
    assert "studies" not in model.definition(plain)["seeds"]


@pytest.mark.parametrize(
    "stopping",
    [pytest.param("", marks=pytest.mark.long), "early_terminate: {type: asha, eta: 2, min_budget: 25%}"],
)
def test_killed_anywhere_with_four_workers_strict_replay_ends_the_same(tmp_path: Path, stopping: str) -> None:
    text = text_of(stopping, method="tpe", trials=4, studies=2).replace(
        "random_share: 0.5", "random_share: 0.5, replay: strict, lag: 2"
    )
    plain, _ = run(tmp_path / "plain", text)
    folder = None
    for attempt in range(60):
        try:
            folder, _ = run(tmp_path / "killed", text, Interleaved(4, attempt, die_after=11 + attempt % 7))
        except Dies:
            continue
        break
    assert folder is not None, "it never came to its end"
    assert attempt > 0, "it was never killed"
    assert (searched(folder), ended(folder)) == (searched(plain), ended(plain))
    with folder.hold():
        assert reconcile.reconcile(folder, None) == []


def test_population_based_training_in_each_study(tmp_path: Path) -> None:
    text = text_of("early_terminate: {type: pbt, eta: 2, min_budget: 50%}", method="random", trials=4, studies=2)
    folder, outcome = run(tmp_path, text)
    assert outcome.state is SweepState.DONE
    children = [t.job for t in results.ended_trials(folder) if t.job.lineage]
    assert {job.study for job in children} == {1, 2}
    again, _ = run(tmp_path / "again", text, Interleaved(3, seed=5))
    assert ended(again) == ended(folder)


def test_a_budget_ends_every_search_at_the_same_number(tmp_path: Path) -> None:
    """Room for two rounds of three: all six studies try two configurations, and all confirm."""
    each = 8
    text = text_of(studies=3, trials=3).replace(
        "trials_per_arm: 3", f"trials_per_arm: 3, grad_evals: {(2 * 6 + 6) * each}"
    )
    folder, outcome = run(tmp_path, text)
    assert outcome.state is SweepState.BUDGET
    assert {name: len(found) - 1 for name, found in searched(folder).items()} == dict.fromkeys(searched(folder), 2)
    assert sum(t.job.stage == "confirm" for t in results.ended_trials(folder)) == 6


def test_a_race_over_studies_stops_the_further_studies_of_a_loser(tmp_path: Path) -> None:
    """`bad` can only learn nothing (lr near 0); after the first look it begins no further study."""
    text = text_of("racing: {level: 0.3, looks: 1}", studies=6, method="random").replace(
        "  adamw: {optimizer: adamw, parameters: {lr: {distribution: log_uniform_values, min: 0.01, max: 0.3}}}",
        "  bad: {optimizer: adamw, parameters: {lr: {distribution: log_uniform_values, min: 1e-9, max: 1e-8}}}",
    )
    folder, outcome = run(tmp_path, text)
    assert outcome.state is SweepState.DONE
    race = read_json(folder.race)
    stopped_after = race["stopped"]["bad"]["seeds"]
    assert "studies" in race["stopped"]["bad"]["reason"]
    ran = {arm: {t.job.study for t in results.ended_trials(folder) if t.job.arm == arm} for arm in ("sgd", "bad")}
    assert ran["sgd"] == set(range(1, 7))
    assert ran["bad"] == set(range(1, stopped_after + 1))
    assert outcome.conductor.remaining == 0
    again, _ = run(tmp_path / "again", text, Interleaved(4, seed=3))
    assert (ended(again), read_json(again.race)) == (ended(folder), race)


@pytest.mark.parametrize("theirs, share", [(3, None), (1, 3)])
def test_no_two_studies_are_warmed_by_the_same(tmp_path: Path, theirs: int, share: int | None) -> None:
    earlier, _ = run(tmp_path, text_of(studies=theirs, trials=6 // theirs, name="earlier", method="random"))
    known = {name: [c[0]["lr"] for c in found[:-1]] for name, found in searched(earlier).items()}
    text = text_of(f"warm_start: [{earlier.sweep_id}]", name="later", trials=2)
    definition = sweep_file.loads(text)
    folder = runner.open_folder(definition, text, tmp_path, {})
    arms = open_arms(definition, folder)
    from orchestrator.scheduling.studies import learn

    learn(definition, folder, arms)
    for arm in ("sgd", "adamw"):
        taken = []
        for study in (1, 2, 3):
            lessons = arms[f"{arm}@{study}"].study._study.get_trials()  # type: ignore[attr-defined]
            taken.append([t.params["lr"] for t in lessons if "warm start" in t.user_attrs])
        if share is None:
            assert taken == [known[f"{arm}@{study}"] for study in (1, 2, 3)]
        else:
            assert taken == [known[arm][study::share] for study in range(3)]


def test_a_study_without_any_success_is_shown(tmp_path: Path) -> None:
    """Every trial of study 2 fails: it confirms nothing, and the others go on."""
    text = text_of(fail_at=2, fail_seed=1, max_failed=100)
    folder, outcome = run(tmp_path, text)
    assert outcome.state is SweepState.DONE
    confirmed = {t.job.study for t in results.ended_trials(folder) if t.job.stage == "confirm"}
    assert confirmed == {1, 3}
    status = results.status(folder)
    assert all(row.failed == 2 for row in status.arms.values())
    assert json.dumps(results.best(folder).document())
