"""Runs of an MLflow experiment that somebody else logged.

A nested run inherits the parameters and tags of its parents, unless it has its own of that name; a run with children
only summarizes them and is left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.definition.states import State
from orchestrator.storage.errors import Unreachable
from orchestrator.storage.foreign_runs import ForeignRun, ForeignRuns, UnusableError, check_there, listed, shown
from orchestrator.tracking.mlflow import PARENT

PAGE = 1000
STATES = {"FINISHED": State.COMPLETE, "FAILED": State.FAILED, "KILLED": State.FAILED}


def runs(uri: str, experiments: Sequence[str], metrics: Sequence[str] = ()) -> ForeignRuns:
    """The runs of the experiments, by name or id, with the histories of `metrics` (and of all names with that ending).

    Raises UnusableError if there is no such experiment or no run; Unreachable if the server does not answer.
    """
    for key, value in (("MAX_RETRIES", "2"), ("TIMEOUT", "10")):
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{key}", value)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    check_there(uri)
    if "://" not in uri or uri.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # folders are only read, never created
        if Path(uri).is_file():
            raise UnusableError(f"{uri}: is a file; write a database as sqlite:///{uri}")
    named, uri = uri, shown(uri)
    try:
        client = MlflowClient(tracking_uri=named)
        ids = [_experiment(client, name) for name in experiments]
        found = [run for one in ids for run in _all_runs(client, one)]
    except MlflowException as error:
        if "API request to" in str(error):
            raise Unreachable(f"{uri} does not answer; start the MLflow server, or name another one") from None
        raise UnusableError(f"{uri}: {shown(str(error).splitlines()[0])}") from None
    if not found:
        raise UnusableError(f"{uri}: {listed(experiments)} has no runs")
    by_id = {run.info.run_id: run for run in found}
    parents = {run.data.tags.get(PARENT) for run in found}
    leaves = [run for run in found if run.info.run_id not in parents]
    notes = []
    if len(leaves) < len(found):
        notes.append(f"parent runs, which only summarize their children, left out: {len(found) - len(leaves)}")
    ended = [run for run in leaves if run.info.status in STATES]
    if len(ended) < len(leaves):
        notes.append(f"not ended yet (RUNNING or SCHEDULED), left out: {len(leaves) - len(ended)}")
    rows = [_row(client, run, by_id, metrics) for run in ended]
    kinds = {prefix: sorted({k for row in rows for k in row.values if k.startswith(prefix)}) for prefix in KINDS}
    return ForeignRuns(
        source=f"{uri} {listed(experiments)}",
        kind="mlflow",
        runs=rows,
        columns=[*kinds["params."], *kinds["metrics."], *kinds["tags."], "run_name", "run_id"],
        metrics=kinds["metrics."],
        parameters=kinds["params."],
        notes=notes,
    )


KINDS = ("params.", "metrics.", "tags.")


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None and name.isdigit():
        found = client.get_experiment(name)
    if found is None:
        there = [one.name for one in client.search_experiments()]
        raise UnusableError(f"no experiment {name!r}; available: {listed(there) or 'none'}")
    return str(found.experiment_id)


def _all_runs(client: Any, experiment: str) -> list[Any]:
    """Oldest first."""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment], order_by=["attributes.start_time ASC"], max_results=PAGE, page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


def _row(client: Any, run: Any, by_id: Mapping[str, Any], metrics: Sequence[str]) -> ForeignRun:
    line = [run]
    while (above := line[-1].data.tags.get(PARENT)) in by_id and by_id[above] not in line:
        line.append(by_id[above])
    values: dict[str, Any] = {}
    for one in reversed(line):
        values |= {f"params.{k}": v for k, v in one.data.params.items()}
        values |= {f"tags.{k}": v for k, v in one.data.tags.items() if not k.startswith("mlflow.")}
    values |= {f"metrics.{k}": v for k, v in run.data.metrics.items()}
    values |= {"run_name": run.info.run_name, "run_id": run.info.run_id}
    ended, begun = run.info.end_time, run.info.start_time
    wanted = [name for name in run.data.metrics if name in metrics or f"metrics.{name}" in metrics]
    return ForeignRun(
        where=f"run {run.info.run_name or run.info.run_id} ({run.info.run_id[:8]})",
        values=values,
        curves={f"metrics.{name}": _history(client, run.info.run_id, name) for name in wanted},
        state=STATES[run.info.status],
        seconds=(ended - begun) / 1000 if ended and begun else None,
    )


def _history(client: Any, run_id: str, metric: str) -> list[tuple[float, float]]:
    """If a step was logged twice, the later value counts."""
    points = sorted(client.get_metric_history(run_id, metric), key=lambda p: (p.step, p.timestamp))
    return sorted({float(p.step): float(p.value) for p in points}.items())
