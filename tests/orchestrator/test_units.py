"""Budgets in steps, seconds and tokens: what a trial gets, what is checked and said; ids do not know the machine."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import orchestrator.cli.plan  # noqa: F401
from orchestrator import display, results, runner
from orchestrator.cli.app import app
from orchestrator.compare import across, currencies
from orchestrator.compare.answer import answer
from orchestrator.compare.evidence import Evidence
from orchestrator.definition import currency, model, plan, sweep_file
from orchestrator.definition.errors import SpecError
from orchestrator.definition.model import Spec
from orchestrator.definition.states import SweepState
from orchestrator.executors.debug import DebugExecutor
from orchestrator.kubernetes.fit import RenderError, fit
from orchestrator.kubernetes.profiles import load
from orchestrator.protocol import lint, pace, seal
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.sentences import sentence
from orchestrator.storage import calibration
from orchestrator.storage.calibration import Calibrated
from orchestrator.storage.documents import read_json
from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking.base import NoTracker
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import ran

SAM = "optimizer: sam, parameters: {sam_radius: 0.05,"


def text_of(unit: str, per_trial: float, *, studies: int = 1, confirm: int = 6, limit: str = "") -> str:
    """sgd against sam, whose steps cost two gradient evaluations."""
    text = sweep_text(trials=2, method="random", wall_clock=limit)
    text = text.replace("unit: grad_evals, per_trial: 40", f"unit: {unit}, per_trial: {per_trial:g}")
    text = text.replace("seeds: {tune: 1, confirm: 3}", f"seeds: {{studies: {studies}, tune: 1, confirm: {confirm}}}")
    text = text.replace("adamw: {optimizer: adamw, parameters: {", f"sam: {{{SAM} ")
    return text.replace("tests.tasks:Fit", "tests.tasks:Counted") if unit == "tokens" else text


def run(root: Path, text: str, **changes: Any) -> SweepFolder:
    folder, outcome = ran(text, root, spec=replace(sweep_file.loads(text, "test.yaml"), **changes))
    assert outcome.state is SweepState.DONE
    return folder


def budgets(folder: SweepFolder) -> dict[str, set[float]]:
    found: dict[str, set[float]] = {}
    for trial in results.ended_trials(folder):
        found.setdefault(trial.job.arm, set()).add(trial.job.budget)
    return found


def calibrate(definition: Spec, root: Path, text: str, **grad_evals: float) -> SweepFolder:
    """The folder of a sweep that was calibrated on some machine."""
    folder = runner.open_folder(definition, text, root, {})
    found = {
        arm: Calibrated(grad_evals=given, error=0.1, seconds_per_grad_eval=(0.01,)) for arm, given in grad_evals.items()
    }
    calibration.write(folder, definition.budget.per_trial, found)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("studies, confirm", [(1, 6), (3, 2)])
def test_equal_steps_give_the_dearer_optimizer_more_gradients(tmp_path: Path, studies: int, confirm: int) -> None:
    text = text_of("steps", 8, studies=studies, confirm=confirm, limit=", grad_evals: 10000")
    folder = run(tmp_path, text)
    assert budgets(folder) == {"sgd": {8.0}, "sam": {16.0}}
    document = answer(Evidence(folder))
    assert document.budget == "8 steps"
    assert "at 8 steps each" in sentence(document.pairs[0], document.metric)
    assert {t.result.metrics["cost/steps"] for t in results.ended_trials(folder)} == {8.0}
    assert seal.verify(folder).intact
    rows = plan.plan(sweep_file.loads(text)).arms
    assert (rows["sgd"].steps, rows["sam"].steps) == (8, 8)
    assert (rows["sgd"].grad_evals_per_trial, rows["sam"].grad_evals_per_trial) == (8, 16)


@pytest.mark.slow
def test_arms_that_took_other_steps_are_not_compared(tmp_path: Path) -> None:
    evidence = Evidence(run(tmp_path, text_of("steps", 8)))
    evidence.trials.loc[evidence.trials["arm"] == "sam", "cost/steps"] = 7.0
    with pytest.raises(Refused, match=r"budgets differ by more than 2%: sam 7, sgd 8 \(steps\)"):
        answer(evidence)


@pytest.mark.slow
def test_a_limit_in_gradients_counts_what_each_arm_costs(tmp_path: Path) -> None:
    """24 a round of the search and 6 x 24 in reserve: 168 lets one of two rounds begin."""
    folder = run_limited(tmp_path, text_of("steps", 8, limit=", grad_evals: 168"))
    trials = results.ended_trials(folder)
    assert sum(t.result.grad_evals for t in trials) == 168
    assert {(t.job.arm, t.job.configuration) for t in trials} == {("sgd", 0), ("sam", 0)}


def run_limited(root: Path, text: str) -> SweepFolder:
    folder, outcome = ran(text, root)
    assert outcome.state is SweepState.BUDGET
    return folder


@pytest.mark.slow
def test_tokens_are_batches(tmp_path: Path) -> None:
    folder = run(tmp_path, text_of("tokens", 16 * 8 + 8))
    assert budgets(folder) == {"sgd": {8.5}, "sam": {8.5}}
    document = answer(Evidence(folder))
    assert "at 136 examples each" in sentence(document.pairs[0], document.metric)
    assert seal.verify(folder).intact
    sealed = json.loads((folder.path / "seal.json").read_text())
    assert sealed["content"]["tokens_per_batch"] == 16


@pytest.mark.slow
def test_bundled_tasks_count_what_their_batches_hold() -> None:
    import trainables

    counted = {
        "stdlib_lm": ({"block": 32, "batch_size": 4}, "tokens", 128),
        "digits": ({"batch_size": 32}, "examples", 32),
        "digits_fit": ({}, "examples", 128),
    }
    for name, (parameters, word, amount) in counted.items():
        task = trainables.build(name, **parameters)
        assert (task.COUNTS, task.tokens_per_batch()) == (word, amount)
        inputs = task.batch(0, 0)[0]
        assert inputs.numel() == amount if word == "tokens" else len(inputs) == amount


def test_a_pace_gives_the_gradients_that_fit() -> None:
    """(10 - 1 - 4 x 0.5) / 0.01 of two equal paces; one of 2 % spread errs by t x sd x sqrt(3 / 2), not below 5 %."""
    same = pace.Pace(start=1.0, grad_eval=0.01, evaluation=0.5)
    found = pace.worth([same, same], seconds=10, evaluations=4)
    assert (found.grad_evals, found.error) == (700, pace.FLOOR)
    slow, fast = (pace.Pace(start=0.0, grad_eval=0.01 * math.exp(sign * 0.02), evaluation=0.0) for sign in (1, -1))
    found = pace.worth([slow, fast], seconds=10, evaluations=4)
    assert found.error == pytest.approx(12.7062 * 0.02 * math.sqrt(2) * math.sqrt(1.5), rel=1e-4)
    assert pace.worth([same, same], seconds=0.5, evaluations=4).grad_evals == 0


@pytest.mark.slow
def test_seconds_are_measured_once_and_kept(tmp_path: Path) -> None:
    text = text_of("seconds", 0.4, confirm=1).replace("pause_s: 0.0", "pause_s: 0.01")
    definition = sweep_file.loads(text, "test.yaml")
    identity = model.sweep_id(definition)
    folder = run(tmp_path, text)
    kept = calibration.read(folder)
    assert budgets(folder) == {arm: {found.grad_evals} for arm, found in kept.items()}
    assert all(0 < found.grad_evals <= 40 for found in kept.values()), "a gradient takes 10 ms or more"
    assert folder.sweep_id == identity == model.sweep_id(pace.filled(definition, kept))
    assert pace.calibrated(definition, folder) == pace.filled(definition, kept)
    assert read_json(folder.path / "resolved.json")["plan"]["arms"]["sgd"]["grad_evals_per_trial"] is None
    assert seal.verify(folder).intact


@pytest.mark.slow
def test_another_machine_goes_on_with_the_first_ones_figures(tmp_path: Path) -> None:
    text = text_of("seconds", 30, studies=3, confirm=2)
    definition = sweep_file.loads(text, "test.yaml")
    folder = calibrate(definition, tmp_path, text, sgd=24.0, sam=16.0)
    run(tmp_path, text, cache=False)
    assert budgets(folder) == {"sgd": {24.0}, "sam": {16.0}}
    assert seal.verify(folder).intact
    evidence = Evidence(folder)
    for arm, seconds in (("sgd", 31.5), ("sam", 28.5)):
        evidence.trials.loc[evidence.trials["arm"] == arm, "seconds"] = seconds
    document = answer(evidence)
    assert "at 30 seconds each" in sentence(document.pairs[0], document.metric)
    assert document.pairs[0].at_equal_seconds is None
    assert "sgd: 31.5 s per trial, 5% above the 30 s given (calibrated to within 10%)." in document.notes
    evidence = Evidence(folder)
    for arm, seconds in (("sgd", 31.5), ("sam", 24.0)):
        evidence.trials.loc[evidence.trials["arm"] == arm, "seconds"] = seconds
    with pytest.raises(Refused, match=r"budgets differ by more than 20%: sam 24, sgd 31.5 \(seconds\)"):
        answer(evidence)
    caption = str(display.arms_table(definition, folder).renderables[0].caption)
    assert "30 seconds each" in caption
    assert "calibrated to within 10%" in caption
    calibrate(definition, tmp_path, text, sgd=25.0, sam=16.0)
    problems = seal.verify(folder).problems
    assert len(problems) == sum(t.job.arm == "sgd" for t in results.ended_trials(folder))
    assert "its budget 24 is not the sealed 25" in problems[0]


def test_too_few_seconds_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    text = text_of("seconds", 30)
    definition = sweep_file.loads(text, "test.yaml")
    folder = calibrate(definition, tmp_path, text, sgd=24.0, sam=1.0)
    with folder.hold(), pytest.raises(SpecError, match="give arm sam 1 gradient evaluations, too few"):
        runner.run(definition, folder, DebugExecutor(), NoTracker())
    assert not results.ended_trials(folder)


def test_seconds_are_those_of_the_machine_that_trains() -> None:
    with pytest.raises(RenderError, match="calibrates the arms on its own machine"):
        fit(sweep_file.loads(text_of("seconds", 30)), load("kind"))
    with pytest.raises(SpecError, match="2 processes train a trial"):
        sweep_file.loads(text_of("seconds", 30) + "\nresources: {processes: 2}\n")


@pytest.mark.slow
def test_a_twin_has_the_pace_of_its_arm() -> None:
    text = text_of("seconds", 1).replace("pause_s: 0.0", "pause_s: 0.03")  # asleep for most of it
    text += "\nanalysis: {baseline: sgd, twin: true}\n"
    found = pace.measured(sweep_file.loads(text))
    assert found["sgd"] is found["sgd-twin"]


@pytest.mark.slow
def test_sweeps_of_other_units_are_not_compared(tmp_path: Path) -> None:
    sweeps = [Evidence(run(tmp_path, text_of(unit, 8, confirm=1))) for unit in ("steps", "grad_evals")]
    with pytest.raises(Refused, match="have different budget units: steps and grad_evals"):
        across.answer(sweeps)
    assert currencies.spoken(sweeps[1]) == "8 gradient evaluations each"


def test_equal_steps_are_a_finding_only_where_they_cost_differently() -> None:
    codes = {f.code for f in lint.lint(text_of("steps", 20), "x.yaml")}
    alike = text_of("steps", 20).replace(SAM, "optimizer: adamw, parameters: {")
    assert "GS102" in codes
    assert "GS102" not in {f.code for f in lint.lint(alike, "x.yaml")}
    (found,) = (f for f in lint.lint(text_of("steps", 20), "x.yaml") if f.code == "GS102")
    assert "sgd 20, sam 40" in found.message
    assert found.key == "budget.unit"
    waived = text_of("steps", 20) + "\nanalysis: {waive: {GS102: the question is about steps}}\n"
    assert [f.waived for f in lint.lint(waived, "x.yaml") if f.code == "GS102"] == ["the question is about steps"]


def test_seconds_and_tokens_break_no_rule_of_their_own() -> None:
    plain, *others = (
        {f.code for f in lint.lint(text_of(unit, amount), "x.yaml")}
        for unit, amount in (("grad_evals", 40), ("seconds", 30), ("tokens", 640))
    )
    assert all(codes == plain for codes in others)


def test_epochs_are_refused_and_named() -> None:
    text = text_of("epochs", 20)
    with pytest.raises(SpecError, match="'epochs' is not one of"):
        sweep_file.loads(text)
    assert "GS102" in {f.code for f in lint.lint(text, "x.yaml")}


@pytest.mark.parametrize(
    "budget, counted, said",
    [
        ({"unit": "grad_evals", "per_trial": 480}, "", "480 gradient evaluations each"),
        ({"unit": "grad_evals", "per_trial": 0.5}, "", "0.5 gradient evaluations each"),
        ({"unit": "steps", "per_trial": 240}, "", "240 steps each"),
        ({"unit": "seconds", "per_trial": 30.0}, "", "30 seconds each"),
        ({"unit": "tokens", "per_trial": 1_000_000}, "tokens", "1,000,000 tokens each"),
        ({"unit": "tokens", "per_trial": 64_000}, "examples", "64,000 examples each"),
    ],
)
def test_a_budget_in_words(budget: dict[str, Any], counted: str, said: str) -> None:
    assert currency.spoken(budget, counted) == said


@pytest.mark.slow
def test_a_poor_calibration_excuses_no_unequal_seconds(tmp_path: Path) -> None:
    text = text_of("seconds", 30)
    definition = sweep_file.loads(text, "test.yaml")
    folder = calibrate(definition, tmp_path, text, sgd=24.0, sam=16.0)
    kept = {arm: replace(one, error=2.0) for arm, one in calibration.read(folder).items()}
    calibration.write(folder, 30, kept)
    evidence = Evidence(run(tmp_path, text, cache=False))
    for arm, seconds in (("sgd", 15.0), ("sam", 30.0)):
        evidence.trials.loc[evidence.trials["arm"] == arm, "seconds"] = seconds
    with pytest.raises(Refused, match=r"budgets differ by more than 25%"):
        answer(evidence)


@pytest.mark.slow
def test_the_plan_says_what_seconds_are_worth(tmp_path: Path) -> None:
    text = text_of("seconds", 30)
    definition = sweep_file.loads(text, "test.yaml")
    file = tmp_path / "fit.yaml"
    file.write_text(text)
    unknown = invoke("plan", str(file), "--root", str(tmp_path), "--no-calibrate")
    assert "by calibration" in unknown
    assert "30 seconds each" in unknown
    calibrate(definition, tmp_path, text, sgd=24.0, sam=16.0)
    assert "sgd: 24 gradient evaluations take 30 s alone on this machine, to within 10%" in invoke(
        "plan", str(file), "--root", str(tmp_path)
    )
    document = json.loads(invoke("plan", str(file), "--root", str(tmp_path), "--json"))
    assert document["budget"] == {"unit": "seconds", "per_trial": 30}
    assert {arm: row["steps"] for arm, row in document["arms"].items()} == {"sgd": 24, "sam": 8}
    assert document["calibration"]["sam"]["error"] == 0.1


def invoke(*words: str) -> str:
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    return " ".join(found.stdout.split())
