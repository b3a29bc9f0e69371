"""The Parquet tables of a sweep, built from its folder alone: one row per trial, and one row per logged point."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.definition.columns import PARAMETER, of_metric
from orchestrator.protocol import feasible, seal
from orchestrator.results import ended_trials
from orchestrator.storage import typed_column, whole
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import MetricLog
from orchestrator.trial.counted import counted
from orchestrator.trial.record import TrialRecord, counted_grad_evals

TRIAL_COLUMNS = {
    "sweep_id": pa.string(),
    "arm": pa.string(),
    "study": pa.int64(),
    "stage": pa.string(),
    "trial_id": pa.string(),
    "seed": pa.int64(),
    "state": pa.string(),
    "parameters": pa.string(),
    "grad_evals": pa.float64(),
    "seconds": pa.float64(),
    "init_digest": pa.string(),
    "data_digest": pa.string(),
}
METRIC_SCHEMA = pa.schema(
    [("trial_id", pa.string()), ("step", pa.float64()), ("name", pa.string()), ("value", pa.float64())]
)


def tables(folder: SweepFolder) -> dict[str, pa.Table]:
    """Name -> table, for both Parquet tables.

    Seal and stamps are in the schema metadata; trials of a stamped sweep also have them in a column `exploratory`.
    """
    ended = ended_trials(folder)
    stamps, trials = seal.stamps(folder), trials_table(folder, ended)
    if stamps:
        trials = trials.append_column("exploratory", pa.array(["; ".join(stamps)] * len(trials), pa.string()))
    facts = {"geosweep.seal": seal.sealed_hash(folder), "geosweep.exploratory": json.dumps(stamps)}
    found = {"trials": trials, "metrics": metrics_table(folder, ended)}
    return {name: table.replace_schema_metadata(facts) for name, table in found.items()}


def trials_table(folder: SweepFolder, ended: list[TrialRecord] | None = None) -> pa.Table:
    """trials.parquet: one row per ended trial, with a column for each hyperparameter and each final metric.

    Column `param.NAME` has the type of all values that the sweep may try (see `typed_column`) and is null for a trial
    without it. Column `lineage` (JSON, as in `job.Job`) exists where hyperparameters changed during training, and
    `superseded` where a study was extended and then chose another configuration: these confirm trials do not count.
    A metric with the name of another column is in `metric.NAME`.
    """
    trials = ended_trials(folder) if ended is None else ended
    rows = [_row(folder.sweep_id, t) for t in trials]
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in TRIAL_COLUMNS.items()}
    for name, samples in _searched(folder, trials).items():
        columns[PARAMETER + name] = typed_column.column([t.job.values.get(name) for t in trials], samples)
    if any(t.job.lineage for t in trials):
        columns["lineage"] = pa.array([json.dumps(t.job.lineage, sort_keys=True) for t in trials], pa.string())
    if broke := feasible.breaches(folder, trials):
        keys = [(t.job.arm, t.job.study, t.job.configuration) for t in trials]
        columns["feasible"] = pa.array([None if key not in broke else not broke[key] for key in keys], pa.bool_())
    used = {t.trial_id for t in counted(trials)}
    if len(used) < len(trials):
        columns["superseded"] = pa.array([t.trial_id not in used for t in trials], pa.bool_())
    asked = _asked(folder)
    for name in sorted({name for t in trials for name in t.result.metrics}):
        columns[of_metric(name, asked)] = pa.array([t.result.metrics.get(name) for t in trials], pa.float64())
    return pa.table(columns)


def _asked(folder: SweepFolder) -> frozenset[str]:
    """The metrics that the sweep tunes or reports."""
    resolved = folder.resolved()
    definition = resolved.definition
    objectives = [o["name"] for o in definition.get("objectives", ())]
    named = [definition.get("metric", {}).get("name"), resolved.report_metric, *objectives]
    return frozenset(name for name in named if name)


def _searched(folder: SweepFolder, trials: Iterable[TrialRecord]) -> dict[str, list[Any]]:
    """Hyperparameter -> values that determine its type: those that the sweep declares, so the type stays the same as
    trials end.
    """
    found: dict[str, list[Any]] = {}
    for arm in folder.resolved().definition.get("arms", {}).values():
        for p in arm["parameters"]:
            numbers: dict[str, list[Any]] = {"int": [0], "float": [0.0]}
            found.setdefault(p["name"], []).extend(numbers.get(p["kind"], p["values"]))
    for name in sorted({name for t in trials for name in t.job.values} - found.keys()):
        found[name] = []
    return found


def _row(sweep_id: str, trial: TrialRecord) -> dict[str, Any]:
    """A trial's TRIAL_COLUMNS."""
    job, result = trial.job, trial.result
    return {
        "sweep_id": sweep_id,
        "arm": job.arm,
        "study": job.study,
        "stage": job.stage,
        "trial_id": job.trial_id,
        "seed": job.seed,
        "state": result.state,
        "parameters": json.dumps(job.values, sort_keys=True),
        "grad_evals": counted_grad_evals(trial),
        "seconds": result.seconds,
        "init_digest": result.init_digest,
        "data_digest": result.data_digest,
    }


def metrics_table(folder: SweepFolder, ended: list[TrialRecord] | None = None) -> pa.Table:
    """metrics.parquet: every logged point, step in gradient evaluations."""
    rows: dict[str, list[Any]] = {"trial_id": [], "step": [], "name": [], "value": []}
    for trial in ended_trials(folder) if ended is None else ended:
        for point in MetricLog(folder.trial(trial.trial_id) / "metrics.jsonl").points():
            for name, value in point.metrics.items():
                for key, cell in zip(rows, (trial.trial_id, point.step, name, value), strict=True):
                    rows[key].append(cell)
    return pa.table(rows, schema=METRIC_SCHEMA)


def export(folder: SweepFolder, to: Path) -> list[Path]:
    """Write both tables into the folder `to`; returns their paths."""
    return write(tables(folder), to)


def write(named: Mapping[str, pa.Table], to: Path) -> list[Path]:
    """Write the tables as Parquet into the folder `to`; returns their paths."""
    contents = {}
    for name, table in named.items():
        out = pa.BufferOutputStream()
        pq.write_table(table, out)
        contents[to / f"{name}.parquet"] = out.getvalue()
    return whole.write(contents)
