"""Imported runs as the folder of a sweep: what `compare`, `report`, `table`, `best`, `export` and `status` read.

`sweep.yaml` says what was imported and how; it is not a sweep file, so nothing can be run from it. There is no seal:
nothing was promised before the results were known.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.definition.foreign import IMPORTED
from orchestrator.definition.planned import ArmPlan, Plan
from orchestrator.definition.resolved import Imported, Resolved
from orchestrator.definition.space import Parameter, is_number
from orchestrator.definition.states import Stage, State, SweepState
from orchestrator.imported.design import Design, Placed
from orchestrator.imported.roles import Question, Roles, bare
from orchestrator.imported.rows import goal_of
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.foreign_runs import ForeignRuns
from orchestrator.storage.metric_log import LoggedPoint, MetricLog
from orchestrator.storage.outcome import SweepOutcome
from orchestrator.trial.job import Job, Result
from orchestrator.trial.record import TrialRecord
from orchestrator.trial.trial_id import TrialId

TASK = IMPORTED
DECADES = 100.0


def write(
    root: Path,
    name: str,
    table: ForeignRuns,
    role: Roles,
    design: Design,
    question: Question,
    notes: Sequence[str],
    facts: Mapping[str, str],
) -> tuple[SweepFolder, bool]:
    """The sweep's folder, and whether it already existed: the same runs, imported the same way, are one sweep."""
    definition = _definition(name, role, design, question)
    content = json.dumps(definition, sort_keys=True, separators=(",", ":"))
    folder = SweepFolder(root, f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}")
    if SweepOutcome.read(folder) is not None:
        return folder, True
    metric, _ = goal_of(role)
    counts = Counter(one.row.arm for one in design.placed)
    mark = Imported(
        source=table.source,
        kind=table.kind,
        pairing=design.pairing,
        metrics={bare(column): goal.value for column, goal in role.metrics.items()},
        budget=bare(role.budget),
        notes=notes,
        not_compared=design.not_compared,
        columns={k: v for k, v in asdict(role).items() if k not in ("metrics", "guessed")},
        imported_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    what = Resolved(
        sweep_id=folder.sweep_id,
        definition={key: value for key, value in definition.items() if key != "content"},
        report_metric=bare(role.report),
        plan=Plan(arms={arm: ArmPlan(trials=n) for arm, n in counts.items()}),
        provenance=facts,
        imported=mark,
    )
    folder.create(_text(name, mark), what)
    for one in design.placed:
        _trial(folder, one, role, metric, design, question)
    folder.add_seconds(sum(one.row.seconds or 0.0 for one in design.placed))
    SweepOutcome(state=SweepState.DONE, tracked=True, complete=True).write(folder)
    return folder, False


def _text(name: str, mark: Imported) -> str:
    """The record in place of a sweep file."""
    return (
        "# Results that others trained, imported by `geosweep import`: a record of what was read, no sweep to run.\n"
        f"imported: {json.dumps(asdict(mark), indent=1, sort_keys=True)}\n"
        f"name: {json.dumps(name)}\n"
        f"description: {json.dumps('Imported from ' + mark.source)}\n"
    )


def _definition(name: str, role: Roles, design: Design, question: Question) -> dict[str, Any]:
    """As for our own sweeps; `content` makes different results a different sweep."""
    metric, goal = goal_of(role)
    arms = list(dict.fromkeys(one.row.arm for one in design.placed))
    seeds = {stage: sorted({one.seed for one in design.placed if one.stage is stage}) for stage in Stage}
    spent = [one.row.budget for one in design.placed if one.row.budget is not None]
    content = [
        [one.row.arm, one.stage, one.study, one.seed, one.row.parameters, one.row.metrics] for one in design.placed
    ]
    return {
        "schema_version": 1,
        "name": name,
        "task": {"name": TASK, "parameters": {}},
        "metric": {"name": bare(metric), "goal": goal.value, "select": question.select},
        "report_metric": bare(role.report),
        "arms": {arm: {"name": arm, "optimizer": arm, "parameters": _space(design.placed, arm)} for arm in arms},
        "constraints": [],
        "method": {"name": "random", "random_share": 1.0, "seed": 0},
        "budget": {"unit": bare(role.budget), "per_trial": max(spent, default=0.0), "trials_per_arm": None},
        "seeds": {
            "tune": seeds[Stage.TUNE],
            "confirm": seeds[Stage.CONFIRM],
            **({"studies": design.studies} if design.studies > 1 else {}),
        },
        "evaluations": max([1, *(len(c) for one in design.placed for c in one.row.curves.values())]),
        "pairing": design.pairing,
        "content": hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest(),
    }


def _space(placed: Sequence[Placed], arm: str) -> list[dict[str, Any]]:
    """The hyperparameters of an arm, with the values and ranges that its runs had."""
    own = [one.row.parameters for one in placed if one.row.arm == arm]
    found = []
    for name in dict.fromkeys(key for parameters in own for key in parameters):
        values = list(dict.fromkeys(p[name] for p in own if name in p))
        if len(values) == 1:
            one = Parameter(name=name, kind="constant", values=tuple(values))
        elif all(map(is_number, values)):
            low, high = min(values), max(values)
            kind = "int" if all(isinstance(v, int) for v in values) else "float"
            log = low > 0 and high / low >= DECADES
            one = Parameter(name=name, kind="int" if kind == "int" else "float", low=low, high=high, log=log)
        else:
            one = Parameter(name=name, kind="categorical", values=tuple(values))
        found.append(json.loads(json.dumps(asdict(one))))
    return found


def _trial(folder: SweepFolder, placed: Placed, role: Roles, metric: str, design: Design, question: Question) -> None:
    row = placed.row
    trial_id = str(TrialId(row.arm, placed.configuration, placed.seed, placed.study if design.studies > 1 else None))
    job = Job(
        trial_id=trial_id,
        arm=row.arm,
        stage=placed.stage,
        configuration=placed.configuration,
        seed=placed.seed,
        optimizer=row.arm,
        parameters=dict(row.parameters),
        task=TASK,
        task_parameters={},
        budget=row.budget or 0.0,
        evaluations=max([1, *map(len, row.curves.values())]),
        metric=bare(metric),
        goal=role.metrics[metric],
        select=question.select,
        folder="",
        stop_file="",
        study=placed.study,
    )
    metrics = {bare(name): value for name, value in row.metrics.items() if math.isfinite(value)}
    value = None if row.state is State.PRUNED else metrics.get(bare(metric))
    result = Result(
        state=row.state, value=value, metrics=metrics, grad_evals=row.budget or 0.0, seconds=row.seconds or 0.0
    )
    at = folder.trial(trial_id)
    TrialRecord(job=job, result=result).write(at)
    MetricLog(at / "metrics.jsonl").replace(_points(placed, metrics))


def _points(placed: Placed, metrics: Mapping[str, float]) -> list[LoggedPoint]:
    """The curves, step by step; for a run without curves its final values, at what it spent."""
    steps: dict[float, dict[str, float]] = {}
    for name, curve in placed.row.curves.items():
        for step, value in curve:
            if math.isfinite(value):
                steps.setdefault(step, {})[bare(name)] = value
    if not steps:
        steps[placed.row.budget or 1.0] = dict(metrics)
    return [LoggedPoint(step, found) for step, found in sorted(steps.items())]
