"""The whole story in this process: every trial once, exact states, digests, budgets, continuing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest

from orchestrator import results, runner
from orchestrator.definition import sweep_file
from orchestrator.definition.counts import Counts
from orchestrator.definition.states import Stage
from orchestrator.executors.debug import DebugExecutor
from orchestrator.search.optuna_storage import storage
from orchestrator.storage.errors import Held, NotFound
from orchestrator.storage.folder import SweepFolder, find
from orchestrator.storage.metric_log import MetricLog
from orchestrator.tracking.base import NoTracker
from orchestrator.trial.session import TrialSession
from tests.orchestrator.command import values
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import ran

STEPS = 8


def run(root: Path, executor: Any = DebugExecutor, **changes: Any) -> tuple[SweepFolder, runner.Outcome]:
    return ran(sweep_text(**{"per_trial": STEPS, **changes}), root, executor())


def studies(folder: SweepFolder) -> dict[str, optuna.Study]:
    kept = storage(folder.journal)
    return {
        s.study_name.split("/")[-1]: optuna.load_study(study_name=s.study_name, storage=kept)
        for s in optuna.get_all_study_summaries(kept)
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepFolder, runner.Outcome]:
    """A sweep that ran undisturbed; to be looked at, not to be changed."""
    return run(tmp_path_factory.mktemp("finished"))


@pytest.mark.slow
def test_every_trial_once_and_told(finished: tuple[SweepFolder, runner.Outcome]) -> None:
    folder, outcome = finished
    assert outcome.state == "done"
    for arm in outcome.conductor.arms.values():
        assert arm.counts() == Counts(done=7)
    for study in studies(folder).values():
        assert [t.state.name for t in study.trials] == ["COMPLETE"] * 4
    trials = results.ended_trials(folder)
    told = {(t.job.arm, t.job.configuration): t.result.value for t in trials if t.job.stage == "tune"}
    for arm, study in studies(folder).items():
        assert {t.number: t.value for t in study.trials} == {n: v for (a, n), v in told.items() if a == arm}


def test_confirm_reruns_the_best_on_fresh_paired_seeds(finished: tuple[SweepFolder, runner.Outcome]) -> None:
    folder, _ = finished
    trials = results.ended_trials(folder)
    tune_seeds = {t.job.seed for t in trials if t.job.stage == "tune"}
    for arm in ("sgd", "adamw"):
        tuned = [t for t in trials if t.job.arm == arm and t.job.stage == "tune"]
        confirmed = [t for t in trials if t.job.arm == arm and t.job.stage == "confirm"]
        assert {t.job.configuration for t in confirmed} == {min(tuned, key=lambda t: t.result.value).job.configuration}
        assert not tune_seeds & {t.job.seed for t in confirmed}
    by_seed: dict[int, set[tuple[str, str]]] = {}
    for t in trials:
        by_seed.setdefault(t.job.seed, set()).add((t.result.init_digest, t.result.data_digest))
    assert all(len(digests) == 1 for digests in by_seed.values())
    assert len({d for digests in by_seed.values() for d in digests}) == len(by_seed)


@pytest.mark.slow
def test_a_second_run_does_nothing_and_a_trial_is_a_function_of_its_seed(tmp_path: Path) -> None:
    folder, _ = run(tmp_path / "a")
    before = {p: p.stat().st_mtime_ns for p in folder.path.glob("trials/*/result.json")}
    _, again = run(tmp_path / "a")
    assert again.state == "done"
    assert {p: p.stat().st_mtime_ns for p in folder.path.glob("trials/*/result.json")} == before
    other, _ = run(tmp_path / "b")
    assert values(folder) == values(other)


def test_budgets_agree(finished: tuple[SweepFolder, runner.Outcome]) -> None:
    folder, _ = finished
    spent = [t.result.grad_evals for t in results.ended_trials(folder)]
    assert max(spent) <= STEPS
    assert max(spent) - min(spent) <= 0.02 * max(spent)


@pytest.mark.slow
def test_divergence_is_a_result(tmp_path: Path) -> None:
    folder, outcome = run(tmp_path, max_lr=1e6, method="random", trials=8)
    diverged = [t for t in results.ended_trials(folder) if t.result.state == "DIVERGED"]
    assert diverged
    assert outcome.state == "done"
    for t in diverged:
        assert t.result.value == t.result.metrics["loss/val"] == 1e4
    told = {t.value for t in studies(folder)["sgd"].trials}
    assert 1e4 in told
    assert all(v is not None and math.isfinite(v) for v in told)


@pytest.mark.slow
def test_an_exception_fails_the_trial_alone(tmp_path: Path) -> None:
    folder, outcome = run(tmp_path, fail_at=5, fail_seed=1001)
    failed = [t for t in results.ended_trials(folder) if t.result.state == "FAILED"]
    assert {t.job.seed for t in failed} == {1001}
    assert outcome.failed == 2
    document = results.status(folder)
    assert "on fire" in document.errors[failed[0].trial_id]
    assert document.arms["sgd"].failed == 1
    assert document.state == "done"


@pytest.mark.slow
def test_a_failed_configuration_is_never_told_as_a_value(tmp_path: Path) -> None:
    folder, outcome = run(tmp_path, fail_at=5)
    states = [t.state.name for study in studies(folder).values() for t in study.trials]
    assert set(states) == {"FAIL"}
    assert outcome.conductor.exhausted
    assert outcome.failed == len(states) >= 5
    assert outcome.refusal, "all failed alike: the rest is not tried"


class Dies(Exception):
    """Stands for kill -9: leaves everything as it is at that moment."""


@pytest.mark.slow
def test_killed_anywhere_the_next_driver_goes_on(tmp_path: Path) -> None:
    """Die after every k-th report; each time a new driver continues; the end equals the undisturbed sweep."""
    plain, _ = run(tmp_path / "plain", method="random")

    class Fragile(DebugExecutor):
        def run(self, conductor: Any) -> None:
            left = 3
            on_report = conductor.on_report

            def dying(report: Any) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    raise Dies
                on_report(report)

            conductor.on_report = dying
            super().run(conductor)

    for _ in range(40):
        try:
            folder, outcome = run(tmp_path / "fragile", Fragile, method="random")
        except Dies:
            continue
        break
    assert outcome.state == "done"
    assert values(folder) == values(plain)
    for arm, study in studies(folder).items():
        assert [t.params for t in study.trials] == [t.params for t in studies(plain)[arm].trials]
        assert all(t.state.name == "COMPLETE" for t in study.trials)


@pytest.mark.slow
def test_drained_and_continued_equals_uninterrupted(tmp_path: Path) -> None:
    plain, _ = run(tmp_path / "plain", trials=1, confirm=1, pause_s=0.02)
    text = sweep_text(per_trial=STEPS, trials=1, confirm=1, pause_s=0.02)
    definition = sweep_file.loads(text, "test.yaml")
    folder = runner.open_folder(definition, text, tmp_path / "drained", {})

    class Draining(DebugExecutor):
        def run(self, conductor: Any) -> None:
            began = conductor.next_job

            def next_job() -> Any:
                job = began()
                if job is not None:
                    folder.stop_file.touch()
                return job

            conductor.next_job = next_job
            super().run(conductor)

    states = []
    for _ in range(20):
        with folder.hold():
            states.append(runner.run(definition, folder, Draining(), NoTracker()).state)
        if not results.status(folder).total.waiting:
            break
    assert "stopped" in states
    with folder.hold():
        assert runner.run(definition, folder, DebugExecutor(), NoTracker()).state == "done"
    assert values(folder) == values(plain)


@pytest.mark.slow
def test_a_worker_that_sees_the_stop_flag_first_stops_the_sweep(tmp_path: Path) -> None:
    """In a store workers look at the flag themselves, perhaps before the driver: nothing more is begun."""
    (tmp_path / "flag").touch()
    begun = []

    class Elsewhere(DebugExecutor):
        def run(self, conductor: Any) -> None:
            while not conductor.exhausted:
                if job := conductor.next_job():
                    begun.append(job.trial_id)
                    conductor.on_report(TrialSession(replace(job, stop_file=str(tmp_path / "flag"))).advance())

    folder, outcome = run(tmp_path / "runs", Elsewhere, per_trial=40, trials=1, confirm=1, pause_s=0.02)
    assert (outcome.state, len(begun)) == ("stopped", 1)
    again, outcome = run(tmp_path / "runs", per_trial=40, trials=1, confirm=1, pause_s=0.02)
    assert (again.sweep_id, outcome.state) == (folder.sweep_id, "done")
    assert set(begun) < set(values(again))


@pytest.mark.slow
def test_wall_clock_budget_stops_and_more_continues(tmp_path: Path) -> None:
    folder, outcome = run(tmp_path, pause_s=0.02, wall_clock=", wall_clock: 1s")
    assert outcome.state == "budget"
    waiting = results.status(folder).total.waiting
    assert waiting > 0
    again, outcome = run(tmp_path, pause_s=0.02, wall_clock=", wall_clock: 10m")
    assert again.sweep_id == folder.sweep_id
    assert outcome.state == "done"


def test_one_driver_at_a_time(finished: tuple[SweepFolder, runner.Outcome]) -> None:
    folder, _ = finished
    with folder.hold(), pytest.raises(Held, match=r"process \d+ on .* since"), folder.hold():
        raise AssertionError("two drivers hold one sweep")


def test_tables(finished: tuple[SweepFolder, runner.Outcome]) -> None:
    folder, _ = finished
    trials = pq.read_table(folder.results / "trials.parquet")
    assert trials.column_names[:12] == [
        "sweep_id",
        "arm",
        "study",
        "stage",
        "trial_id",
        "seed",
        "state",
        "parameters",
        "grad_evals",
        "seconds",
        "init_digest",
        "data_digest",
    ]
    assert trials.num_rows == 14
    assert set(trials["stage"].to_pylist()) == {"tune", "confirm"}
    assert json.loads(trials["parameters"][0].as_py())["lr"] > 0
    metrics = pq.read_table(folder.results / "metrics.parquet")
    assert metrics.column_names == ["trial_id", "step", "name", "value"]
    assert metrics["step"].to_pylist()[-1] == STEPS


def test_best_document(finished: tuple[SweepFolder, runner.Outcome]) -> None:
    folder, _ = finished
    best = results.best(folder)
    assert best.metric == "loss/val"
    for arm, row in best.arms.items():
        confirmed = results.arm_values(folder, "loss/val")[arm]
        assert row.stage is Stage.CONFIRM
        assert row.value == pytest.approx(sum(confirmed) / 3)


@pytest.mark.slow
def test_find_by_prefix(tmp_path: Path) -> None:
    folder, _ = run(tmp_path, trials=1, confirm=1)
    other, _ = run(tmp_path, trials=1, confirm=1, name="other")
    assert find(tmp_path, "@last").sweep_id == other.sweep_id
    assert find(tmp_path, "fit").sweep_id == folder.sweep_id
    with pytest.raises(NotFound, match="names no sweep; available"):
        find(tmp_path, "missing")
    for path in (folder.path, f"{folder.path}/", tmp_path / "fit"):
        assert find(tmp_path, str(path)).sweep_id == folder.sweep_id
    elsewhere = find(tmp_path / "empty", str(folder.path))
    assert (elsewhere.root, elsewhere.sweep_id) == (tmp_path, folder.sweep_id)
    with pytest.raises(NotFound, match=f"sweeps of the same name with another definition: {folder.sweep_id}"):
        find(tmp_path, "fit-00000000")
    with pytest.raises(NotFound, match="start one with"):
        find(tmp_path / "empty", "@last")


def test_a_torn_log_line_is_left_out(tmp_path: Path) -> None:
    log = MetricLog(tmp_path / "metrics.jsonl")
    log.append(1.0, {"a": 1.0})
    log.append(2.0, {"a": 2.0})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-9])
    assert [p.step for p in log.points()] == [1.0]
