"""Reports: self-contained, complete, quick with a thousand trials, and logged to MLflow beside the arms' summaries."""

from __future__ import annotations

import re
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from orchestrator import runner
from orchestrator.compare import across, profiles
from orchestrator.compare.answer import answer
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.figures import overview
from orchestrator.compare.report import tables
from orchestrator.compare.report.publish import publish
from orchestrator.compare.report.report import build
from orchestrator.definition import model, sweep_file
from orchestrator.definition.states import Goal, Stage, State
from orchestrator.executors.debug import DebugExecutor
from orchestrator.protocol import seal
from orchestrator.statistics.pairing import Refused, Unit
from orchestrator.statistics.sentences import headline, more_words, sentence
from orchestrator.statistics.studies import Settling
from orchestrator.statistics.verdict import Pair, Verdict
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import MetricLog
from orchestrator.tracking.mlflow import MlflowTracker, embedded_uri
from orchestrator.trial.job import Job, Result
from orchestrator.trial.record import TrialRecord
from orchestrator.trial.trial_id import TrialId
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept

ROOT = Path(__file__).parents[2]
LARGE = """
schema_version: 1
name: NAME
description: Does a slow preconditioner help, and how often must it be refreshed?
task: {name: "tests.tasks:Fit"}
metric: {name: loss/val, goal: minimize}
arms:
  sgd: {parameters: {lr: {distribution: log_uniform_values, min: 0.01, max: 1}}}
  slow:
    optimizer: tests.tasks.Slow
    parameters:
      lr: {distribution: log_uniform_values, min: 0.01, max: 1}
      refresh_interval: {values: [1, 3, 10, 30, 100]}
      ema_rate: {distribution: log_uniform_values, min: 0.01, max: 1}
      kind: {values: [plain, svd]}
      rank: {min: 1, max: 8, when: {kind: [svd]}}
method: {name: random}
budget: {per_trial: 80, trials_per_arm: TRIALS}
seeds: {tune: TUNE, confirm: 8}
analysis: {baseline: sgd}
"""
FIGURES = {
    "verdict", "learning-curves", "sensitivity-sgd", "sensitivity-slow", "map-slow-refresh-interval-ema-rate",
    "importance", "parallel-slow", "expected-best",
}  # fmt: skip
HOSTILE = 'Is <img src="http://x"> & "slow" better?'
PASSWORD = "postgresql://me:hunter2@host/db"


def fabricated(root: Path, *, name: str = "large", trials: int, tune: int = 1, shift: float = -0.1) -> Evidence:
    """A finished sweep whose results follow a known surface, written as its trials would have written them."""
    text = f"# {HOSTILE}\n# {PASSWORD}\n" + LARGE.replace("NAME", name).replace("TRIALS", str(trials)).replace(
        "TUNE", str(tune)
    )
    definition = sweep_file.loads(text)
    folder = runner.open_folder(definition, text, root, runner.provenance())
    witness = seal.Witness(folder)
    arms = runner.open_arms(definition, folder)
    for arm in arms.values():
        design, rows = arm.study._design, []  # type: ignore[attr-defined]
        for number in range(trials):
            rows.append(design.configuration(number))
            for seed in definition.seeds.tune:
                _trial(folder, witness, definition, arm.spec, number, rows[-1], seed, Stage.TUNE, shift)
        for seed in definition.seeds.confirm:
            _trial(folder, witness, definition, arm.spec, 0, rows[0], seed, Stage.CONFIRM, shift)
    return Evidence(folder)


def _trial(
    folder: SweepFolder, witness: seal.Witness, s: model.Spec, arm: model.ArmSpec, number: int, given: Any, seed: int,
    stage: Stage, shift: float,
) -> None:  # fmt: skip
    trial_id = str(TrialId(arm.name, number, seed))
    path = folder.trial(trial_id)
    job = Job(
        trial_id=trial_id, arm=arm.name, stage=stage, configuration=number, seed=seed, optimizer=arm.optimizer,
        parameters=given, task=s.task.name, task_parameters=s.task.parameters, budget=80.0, evaluations=8,
        metric="loss/val", goal=Goal.MINIMIZE, select="last", folder=str(path), stop_file="",
    )  # fmt: skip
    rng = np.random.default_rng([seed, number, len(arm.name)])
    end = 0.5 + (np.log10(given["lr"]) + 1) ** 2 * 0.3 + np.random.default_rng(seed).normal(0, 0.1)
    if arm.name == "slow":
        end += shift + 0.05 * abs(np.log10(given["ema_rate"]) + 1) + 0.02 * np.log10(given["refresh_interval"])
    end = float(end + rng.normal(0, 0.02))
    diverged = given["lr"] > 0.8
    points = [
        {"step": 10.0 * i, "time": i, "metrics": {"loss/val": end + 1 / i, "loss/train": end + 1.2 / i}}
        for i in range(1, 9)
    ]
    value = 1e4 if diverged else points[-1]["metrics"]["loss/val"]  # type: ignore[index]
    result = Result(
        state=State.DIVERGED if diverged else State.COMPLETE, value=value, metrics={"loss/val": value},
        grad_evals=80.0, seconds=1.5, init_digest=f"i{seed}", data_digest=f"d{seed}",
    )  # fmt: skip
    TrialRecord(job=job, result=result).write(path)
    log = MetricLog(path / "metrics.jsonl")
    for point in points:
        log.append(point["step"], point["metrics"])  # type: ignore[arg-type]
    witness.on_end(job, result)


@pytest.mark.slow
@pytest.mark.long  # which figures there are is asserted of a small report too
def test_a_thousand_trials_in_twenty_seconds_and_ten_megabytes(tmp_path: Path) -> None:
    evidence = fabricated(tmp_path, trials=492)
    assert len(evidence.records) == 1000
    began = time.process_time()
    page = build(Evidence(evidence.folder), tmp_path / "report")
    assert time.process_time() - began < 20  # a promise to users, not a benchmark: it takes about five
    assert page.stat().st_size < 10e6
    assert drawn(page) == FIGURES


def drawn(page: Path) -> set[str]:
    return {p.stem for p in (page.parent / "figures").glob("*.png")}


@pytest.mark.slow
def test_a_report_reads_without_a_network(tmp_path: Path) -> None:
    evidence = fabricated(tmp_path, trials=12, tune=2)
    file = build(evidence, tmp_path / "report")
    assert drawn(file) == FIGURES
    page = file.read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    own = page[: page.index("Provenance</h2>")]  # below it the code's own changes are quoted
    assert "@import" not in own
    assert "<script" not in page
    assert own.count("data:image/png;base64,") == len(FIGURES)
    first = page[: page.index("Comparisons</h2>")]
    document = answer(evidence)
    assert headline(document) in first
    assert "Does a slow preconditioner help" in first
    assert "sealed before the first trial" in first
    for part in (
        "Learning curves",
        "Sensitivity",
        "Tuning",
        "Would pruning have been safe?",
        "Provenance",
        "sweep.yaml",
    ):
        assert part in page
    csv = (tmp_path / "report" / "pairs.csv").read_text()
    assert csv.splitlines()[0].startswith("A,B,n,A − B [95 %]")
    latex = (tmp_path / "report" / "arms.tex").read_text()
    assert latex.count("\\toprule") == latex.count("\\bottomrule") == 1
    assert "\\_" in latex
    assert "# Is &lt;img src=&#34;http://x&#34;&gt; &amp; &#34;slow&#34; better?" in page
    assert '<img src="http' not in page
    assert "# postgresql://***@host/db" in page


def test_text_is_text_in_latex() -> None:
    latex = tables.as_latex([{"a_b": "x^2 {y} ~ 50% − ∞ \\ $1 #2"}], "c_d ±1", ["e&f"])
    assert latex.splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{c\_d $\pm$1 \emph{exploratory: e\&f.}}",
        r"\begin{tabular}{l}",
        r"\toprule",
        r"a\_b \\",
        r"\midrule",
        r"x\textasciicircum{}2 \{y\} \textasciitilde{} 50\% $-$ $\infty$ \textbackslash{} \$1 \#2 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_every_file_beside_the_code_is_installed_with_it() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package, patterns in declared.items():
        beside = {p for p in (ROOT / package).rglob("*.*") if p.suffix not in (".py", ".pyc", ".md") and p.is_file()}
        assert beside <= {p for pattern in patterns for p in (ROOT / package).glob(pattern)}


def verdicts(unit: Unit, *words: str) -> Verdict:
    """So many pairs of x, y and z, all alike but for what is said of them."""
    one = Pair(
        a="x", b="y", unit=unit, n=8, difference=0.1, interval=(-0.1, 0.3), confidence=0.95, p=0.1, p_holm=0.3,
        p_equivalent=None, wilcoxon_p=0.1, outperforms=0.6, outperforms_interval=(0.2, 0.9), verdict="", alone=None,
        detectable=None, components=None, settles=Settling(studies=4, confirm=None, trials=32, cheapest="studies"),
        seeds_needed=12, more_seeds=4, searched={"x": 6, "y": 6, "z": 6}, study_trials=8,
    )  # fmt: skip
    names = (("x", "y"), ("x", "z"), ("y", "z"))
    return Verdict(
        sweep_id="s", metric="m", goal=Goal.MAXIMIZE, baseline=None, margin=0.1, alpha=0.05, unit=unit, units=8,
        studies=8, seeds=(), seeds_of={}, diverged=(), notes=(), race=None, twin=None,
        pairs=[replace(one, a=a, b=b, verdict=word) for (a, b), word in zip(names, words, strict=False)],
    )  # fmt: skip


@pytest.mark.parametrize("unit", ["study", "seed"])
def test_nothing_more_is_asked_of_what_is_settled(unit: Unit) -> None:
    """As by an earlier look, after which the pair alone would be open again at the level that is left."""
    settled, still_open = verdicts(unit, "better", "inconclusive").pairs
    assert (more_words(settled), bool(more_words(still_open))) == ("", True)


def test_headlines_of_studies() -> None:
    tail = ", each tuned with 6 trials, in 8 studies"
    assert headline(verdicts("study", "better", "better", "inconclusive")) == f"x is better than y and z{tail}."
    assert headline(verdicts("study", "inconclusive", "better", "better")) == f"x and y are better than z{tail}."
    assert headline(verdicts("study", "worse", "inconclusive", "inconclusive")) == f"y is better than x{tail}."
    assert headline(verdicts("study", *3 * ["equivalent"])) == f"The arms{tail}, are equivalent within ±0.1 m."
    assert "about 4 more studies (32 trials per arm)" in headline(verdicts("study", *3 * ["inconclusive"]))
    against = replace(verdicts("study", "worse", "inconclusive"), baseline="sgd")
    assert headline(against) == f"y is better than x{tail}. Not settled against sgd: x."
    assert headline(None, "no seeds") == "No verdict: no seeds"


def test_headlines_of_one_search_name_configurations() -> None:
    last = "One search each says nothing about the methods."
    found = headline(verdicts("seed", "better", "better", "inconclusive"))
    assert found == f"The configuration found for x beats the ones found for y and z. {last}"
    found = headline(verdicts("seed", "inconclusive", "better", "better"))
    assert found == f"The configurations found for x and y beat the one found for z. {last}"
    assert headline(verdicts("seed", *3 * ["equivalent"])).startswith("The configurations found are equivalent within")
    assert "about 4 more seeds" in headline(verdicts("seed", *3 * ["inconclusive"]))


@pytest.mark.slow
def test_a_tampered_sweep_gets_a_report_without_a_verdict(tmp_path: Path) -> None:
    evidence = fabricated(tmp_path, trials=4)
    (evidence.folder.trial("sgd-0000-s1003") / "result.json").write_text("{}")
    (evidence.folder.trial("sgd-0000-s1003") / "result.json").unlink()
    page = build(Evidence(evidence.folder), tmp_path / "report").read_text()
    assert "No verdict: the sweep was changed after the fact" in page


@pytest.mark.slow
def test_sweeps_of_one_task_compare_arm_by_arm(tmp_path: Path) -> None:
    a, b = (fabricated(tmp_path, name=n, trials=4, shift=s) for n, s in (("one", -0.2), ("two", -0.05)))
    document = across.answer([a, b])
    arms = {p.a for p in document.pairs} | {p.b for p in document.pairs}
    assert arms == {f"{arm}@{e.sweep_id}" for arm in ("sgd", "slow") for e in (a, b)}
    assert "this comparison was not declared" in document.exploratory[-1]
    given = a.definition["budget"]["per_trial"]
    assert all(f", at {given} gradient evaluations each" in sentence(p, document.metric) for p in document.pairs)
    assert {p["currency"] for p in document.document()["pairs"]} == {f"{given} gradient evaluations each"}
    other = sweep_file.loads(sweep_text())
    folder = runner.open_folder(other, sweep_text(), tmp_path, {})
    with pytest.raises(Refused, match="have different"):
        across.answer([a, Evidence(folder)])


@pytest.mark.slow
def test_profiles_over_sweeps(tmp_path: Path) -> None:
    sweeps = [fabricated(tmp_path, name=f"task-{i}", trials=4, shift=-0.1 * i) for i in range(3)]
    document = profiles.document(sweeps)
    assert document["reference"] == "sgd"
    slow = document["arms"]["slow"]
    assert slow["solved"] == 3
    times = [slow["time_to_target"][s.sweep_id] for s in sweeps]
    assert times == sorted(times, reverse=True)  # the farther ahead, the sooner
    written = {p.name for p in overview.write(document, tmp_path / "out")}
    assert written == {f"profile.{ending}" for ending in ("png", "svg", "pdf", "csv", "tex")}
    assert "critical-difference diagram needs 6" in document["ranks"]["why"]
    assert tables.as_csv(overview.rows(document)).startswith("arm,score,solved,speedup")
    for one in sweeps:  # the reference is known by its optimizer, not by what the arm is called
        one.definition["arms"]["sgd"]["optimizer"], one.definition["arms"]["slow"]["optimizer"] = "adam", "adamw"
    assert profiles.document(sweeps)["reference"] == "slow"
    with pytest.raises(Refused, match="at least two tasks"):
        profiles.document(sweeps[:1])
    with pytest.raises(Refused, match="no reference arm 'adamw'"):
        profiles.document(sweeps, "adamw")


@pytest.mark.slow
def test_mlflow_gets_the_report_and_the_intervals(tmp_path: Path) -> None:
    text = sweep_text(trials=2, confirm=4, per_trial=4)
    definition = sweep_file.loads(text)
    folder = runner.open_folder(definition, text, tmp_path, {})
    tracker = MlflowTracker(
        uri=None, root=tmp_path, sweep_id=folder.sweep_id, name="fit", description="Which?", facts={}
    )
    with folder.hold():
        runner.run(definition, folder, DebugExecutor(), tracker)
    evidence = Evidence(folder)
    place = build(evidence, folder.path / "report").parent
    for _ in range(2):  # sending again changes nothing
        assert publish(evidence, place) == ""
    client = MlflowClient(embedded_uri(tmp_path))
    experiment = client.get_experiment_by_name("fit")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parent = next(r for r in runs if r.data.tags["geosweep.stage"] == "sweep")
    assert {a.path for a in client.list_artifacts(parent.info.run_id, "report")} >= {
        "report/report.html",
        "report/figures",
    }
    assert "**" in parent.data.tags["mlflow.note.content"]
    assert parent.data.tags["geosweep.exploratory"] == "no"
    assert "<th>rows</th><td>64</td>" in (folder.path / "report" / "report.html").read_text()  # what the task said
    summaries = {r.data.params["arm"]: r for r in runs if r.data.params.get("stage") == "summary"}
    values = evidence.confirmed("loss/val")
    for arm, run in summaries.items():
        assert run.data.metrics["loss/val"] == pytest.approx(np.mean(values[arm]))
        assert run.data.metrics["loss/val/low"] < run.data.metrics["loss/val"] < run.data.metrics["loss/val/high"]
        assert run.data.metrics["loss/val/n"] == 4
        assert float(run.data.params["lr"]) == pytest.approx(evidence.chosen(arm)[1]["lr"])
        history = client.get_metric_history(run.info.run_id, "loss/val")
        assert sorted(m.step for m in history) == [1, 2, 3, 4]
        assert "figures/verdict.png" in {a.path for a in client.list_artifacts(run.info.run_id, "figures")}
    unknown = fabricated(tmp_path / "elsewhere", trials=1)
    assert publish(unknown, tmp_path) == ""


@pytest.mark.slow
def test_a_sweep_without_a_tracker_still_reports(tmp_path: Path) -> None:
    text = sweep_text(trials=1, confirm=0, per_trial=4)
    folder = swept(text, tmp_path)
    page = build(Evidence(folder), tmp_path / "report").read_text()
    assert "No verdict: a comparison needs two arms with confirm trials" in page
