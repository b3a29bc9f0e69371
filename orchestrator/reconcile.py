"""Make study, trial folders, tables and tracker agree; the trial folders and the study are the truth.

Each difference is a sentence that says what differed and what was done. Nothing is done twice: on a sweep that agrees
there is nothing to say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq

from orchestrator import results, runner, spec
from orchestrator.conductor import SweepConductor
from orchestrator.folder import SweepFolder, read_json
from orchestrator.metric_log import MetricLog
from orchestrator.spec import Spec


class Audited(Protocol):
    """A tracker that can say, and mend, where it differs from the trial folders."""

    def audit(self, trials: list[dict[str, Any]], state: str) -> list[str]:
        """What differed and was mended. Raises ConnectionError when the tracker does not answer."""


def reconcile(folder: SweepFolder, tracker: Audited | None, url: str | None = None) -> list[str]:
    """Compare and mend; returns the differences, empty when all agree. The caller holds the folder."""
    asked = spec.load(folder.path / "sweep.yaml")
    found = [*_study(asked, folder, url), *_logs(folder), *_tables(folder)]
    if tracker is not None:
        outcome = read_json(folder.path / "outcome.json") or {"state": "stopped"}
        found += tracker.audit(results.ended_trials(folder), outcome["state"])
    return found


def _study(asked: Spec, folder: SweepFolder, url: str | None) -> list[str]:
    """What the study had not been told, and what it was told of trials that are not there."""
    arms = runner.open_arms(asked, folder, url)
    before = {(name, c.number): c.state for name, arm in arms.items() for c in arm.study.configurations()}
    SweepConductor(asked, folder, arms)
    found = []
    for name, arm in arms.items():
        for c in arm.study.configurations():
            if before[name, c.number] != c.state:
                found.append(f"study: {name} {c.number} was {before[name, c.number]}; told {c.state}")
            elif c.state != "RUNNING" and c.number not in arm.outcomes:
                found.append(f"study: {name} {c.number} is {c.state}, but its folder is gone; `geosweep run` trains it")
    return found


def _logs(folder: SweepFolder) -> list[str]:
    found = []
    for path in sorted((folder.path / "trials").glob("*/metrics.jsonl")):
        log = MetricLog(path)
        damage = log.damage()
        if damage:
            log.replace(log.points())
            found.append(f"log: {path.parent.name} had {damage} damaged lines; left out")
    return found


def _tables(folder: SweepFolder) -> list[str]:
    """Tables that are missing or differ from the trial folders are written anew."""
    fresh = {"trials": results.trials_table(folder), "metrics": results.metrics_table(folder)}
    stale = [name for name, table in fresh.items() if not _holds(folder.results / f"{name}.parquet", table)]
    if stale:
        results.export(folder, folder.results)
    return [f"table: {name}.parquet differed from the trial folders; written anew" for name in stale]


def _holds(path: Path, table: object) -> bool:
    return path.exists() and bool(pq.read_table(path).equals(table))
