"""Whole sweeps of two arms that differ in name alone, many times over: what `compare` says about them.

All is real but the training: sweep file, seal, conductor, studies, Optuna, stopping rule, race, trial folders, tables,
`compare`. A trial's result is what the nearest configuration of a table, in (log lr, log weight decay), gave on one of
the table's seeds; which of them a seed of the sweep stands for is drawn anew for every sweep, and is the same for both
arms. An evaluation on the way is as good, and as noisy, as the end: it is the configuration's result on another seed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator import runner
from orchestrator.compare import answer
from orchestrator.compare.evidence import Evidence
from orchestrator.definition import sweep_file
from orchestrator.definition.model import Spec
from orchestrator.definition.states import Stage, State
from orchestrator.executors.base import Conductor
from orchestrator.statistics.studies import Design
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import MetricLog
from orchestrator.tracking.base import NoTracker
from orchestrator.trial import source
from orchestrator.trial.job import Job, Report, Result
from orchestrator.trial.record import write_job, write_result
from tests.bench.null import designs
from tests.bench.null.train_values import RANGES, SEEDS, configurations

Array = NDArray[np.float64]
ARMS = ("one", "other")
SEARCHED = ("lr", "weight_decay")
BUDGET = 200.0
REPEATED = Design(studies=8, configurations=4, tune=1, confirm=2)
SINGLE = Design(studies=1, configurations=12, tune=1, confirm=9)
SEARCHES = {
    "random": """method: {{name: random, seed: {seed}}}
evaluations: 1""",
    "tpe": """method: {{name: tpe, random_share: 0.5, seed: {seed}}}
evaluations: 1""",
    "asha + tpe": """method: {{name: tpe, random_share: 0.5, seed: {seed}}}
early_terminate: {{type: asha, eta: 2, min_budget: 25%}}
evaluations: 4""",
    "racing": """method: {{name: random, seed: {seed}}}
racing: {{level: 0.05, looks: 1}}
evaluations: 1""",
}
YAML = """
schema_version: 1
name: alike
task: {{name: "tests.bench.null.task:Tabulated"}}
metric: {{name: accuracy/val, goal: maximize, report_metric: accuracy/test}}
arms: {{{arms}}}
parameters:
  lr: {{distribution: log_uniform_values, min: {lr[0]}, max: {lr[1]}}}
  weight_decay: {{distribution: log_uniform_values, min: {weight_decay[0]}, max: {weight_decay[1]}}}
budget: {{unit: grad_evals, per_trial: 200, trials_per_arm: {configurations}}}
seeds: {{studies: {studies}, tune: {tune}, confirm: {confirm}}}
cache: false
"""


@dataclass(frozen=True)
class Values:
    """Results of configurations."""

    places: Array
    """(log lr, log weight decay) of each, scaled to the unit square, [configurations, 2]."""
    val: Array
    """[configurations, seeds]."""
    test: Array

    def nearest(self, parameters: Mapping[str, Any]) -> int:
        """The configuration nearest to these parameters."""
        return int(((self.places - _place(parameters)) ** 2).sum(axis=1).argmin())


def _place(parameters: Mapping[str, Any]) -> Array:
    low, high = np.log([RANGES[name] for name in SEARCHED]).T
    return np.asarray((np.log([float(parameters[name]) for name in SEARCHED]) - low) / (high - low))


@cache
def trained() -> Values:
    """Of sgd, as trained (see `train_values`)."""
    val, test = designs.values("sgd")
    return Values(np.array([_place(c) for c in configurations("sgd")]), val, test)


@cache
def normal() -> Values:
    """Configurations and seeds of normal quality, sd 0.01 and 0.01: 512 of them, so that arms seldom find the same."""
    rng = np.random.default_rng(7)
    quality = 0.5 + 0.01 * rng.normal(size=(512, 1))
    val, test = (quality + 0.01 * rng.normal(size=(512, SEEDS)) for _ in range(2))
    return Values(rng.random((512, 2)), val, test)


class TableExecutor:
    """Answers each trial from the table and leaves the files that training it would leave.

    `columns`: seed of the sweep -> seed of the table; `shift` is added to every result of an arm.
    """

    def __init__(self, values: Values, columns: Mapping[int, int], shift: Mapping[str, float]) -> None:
        self._values, self._columns, self._shift = values, columns, shift

    def run(self, conductor: Conductor) -> None:
        """One trial after another."""
        while not conductor.exhausted:
            job = conductor.next_job()
            assert job is not None, "with one worker there is always a next trial"
            self._answer(conductor, job)

    def close(self) -> None:
        """Nothing was started."""

    def _answer(self, conductor: Conductor, job: Job) -> None:
        folder, found = Path(job.folder), self._values.nearest(job.parameters)
        folder.mkdir(parents=True, exist_ok=True)
        write_job(job, folder, durable=False)
        log, metrics, step = MetricLog(folder / "metrics.jsonl"), dict[str, float](), 0.0
        for evaluation in range(1, job.evaluations + 1):
            column = (self._columns[job.seed] + job.evaluations - evaluation) % SEEDS
            pair = self._values.val[found, column], self._values.test[found, column]
            shift = self._shift.get(job.arm, 0.0)
            metrics = {f"accuracy/{name}": float(v) + shift for name, v in zip(("val", "test"), pair, strict=True)}
            step = job.budget * evaluation / job.evaluations
            log.append(step, metrics)
            if evaluation in job.rungs and not conductor.on_report(
                Report(trial_id=job.trial_id, grad_evals=step, metrics=metrics, evaluation=evaluation)
            ):
                return
        same = f"seed {job.seed}"
        result = Result(
            state=State.COMPLETE,
            value=metrics[job.metric],
            metrics=metrics,
            grad_evals=step,
            seconds=0.001,
            init_digest=same,
            data_digest=same,
            code=_code(job.task, job.optimizer),
        )
        write_result(result, folder)
        conductor.on_report(
            Report(trial_id=job.trial_id, grad_evals=step, metrics=metrics, done=True, state=State.COMPLETE)
        )


@cache
def _code(task: str, optimizer: str) -> str:
    """The digest of what a trial would import, which thousands of trials share."""
    return source.digest(task, optimizer)


def sweep_text(search: str, design: Design, number: int) -> str:
    """The sweep file of repetition `number`."""
    arms = ", ".join(f"{name}: {{optimizer: sgd}}" for name in ARMS)
    return YAML.format(arms=arms, **RANGES, **vars(design)) + SEARCHES[search].format(seed=number) + "\n"


def swept(root: Path, text: str, values: Values, number: int, shift: Mapping[str, float]) -> SweepFolder:
    """Run one sweep to its end."""
    spec = sweep_file.loads(text, "alike.yaml")
    folder = runner.open_folder(spec, text, root, {})
    with folder.hold():
        outcome = runner.run(spec, folder, TableExecutor(values, _columns(spec, number), shift), NoTracker())
    assert outcome.state == "done", outcome
    return folder


def _columns(spec: Spec, number: int) -> dict[int, int]:
    seeds = (*spec.seeds.tune, *spec.seeds.confirm)
    drawn = np.random.default_rng([2026, number]).permutation(SEEDS)[: len(seeds)]
    return dict(zip(seeds, map(int, drawn), strict=True))


@dataclass(frozen=True)
class Said:
    """What one sweep said of its two arms."""

    unit: str
    verdict: str
    difference: float
    within: bool
    """Whether the 95 % interval covers the true difference."""
    differences: Array
    """Arm one minus the other, [studies, confirm seeds] of the studies that both confirmed."""

    @property
    def settled(self) -> bool:
        """Better or worse."""
        return self.verdict in ("better", "worse")


def said(search: str, design: Design, number: int, *, values: Values | None = None, effect: float = 0.0) -> Said:
    """Run one sweep in memory where the machine has such a folder, ask `compare`, and clean up."""
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        folder = swept(root, sweep_text(search, design, number), values or trained(), number, {ARMS[0]: effect})
        evidence = Evidence(folder)
        (pair,) = answer.answer(evidence).pairs
        low, high = pair.interval
        covers = low - 1e-12 <= effect <= high + 1e-12
        return Said(pair.unit, pair.verdict, pair.difference, covers, _differences(evidence))
    finally:
        shutil.rmtree(root)


def _differences(evidence: Evidence) -> Array:
    rows = evidence.trials[evidence.trials["stage"] == Stage.CONFIRM]
    table = rows.pivot(index=["study", "seed"], columns="arm", values="accuracy/test").dropna()
    found = (table[ARMS[0]] - table[ARMS[1]]).groupby("study").apply(lambda d: d.to_list())
    return np.array(found.to_list())
