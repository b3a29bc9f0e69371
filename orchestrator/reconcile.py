"""Make study, trial folders, tables and tracker consistent; trial folders and study are the source of truth.

Each difference is reported as a sentence with what differed and what was done. It is idempotent: a consistent sweep
gives no output. `geosweep run` does this at its start and end, `geosweep reconcile` at any time.

An ended trial whose log lost lines gets them back from the tracker, which holds the same points with the same times, or
from the Parquet table. The witness's digest tells whether the restored file is byte for byte the original.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator import parquet, results
from orchestrator.definition import sweep_file
from orchestrator.definition.columns import PARAMETER
from orchestrator.definition.model import Spec
from orchestrator.definition.states import ConfigurationState, SweepState
from orchestrator.protocol import extensions, retries, seal
from orchestrator.scheduling.arm_study import ArmStudy
from orchestrator.scheduling.conductor import SweepConductor
from orchestrator.scheduling.studies import open_arms
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import LoggedPoint, MetricLog
from orchestrator.storage.outcome import SweepOutcome
from orchestrator.tracking.base import Tracker
from orchestrator.trial.record import TrialRecord, read_result

Points = list[LoggedPoint]


class Remembers(Protocol):
    """A tracker that can return what a trial logged."""

    def recall(self, trial_id: str) -> Points:
        """The trial's points; empty if there are none or the tracker does not answer soon."""


class Audited(Remembers, Protocol):
    """A tracker that can report and repair its differences from the trial folders."""

    def audit(self, trials: list[TrialRecord], state: SweepState) -> list[str]:
        """Returns what differed and was repaired. Raises ConnectionError when the tracker does not answer."""


def reconcile(folder: SweepFolder, tracker: Audited | None, url: str | None = None) -> list[str]:
    """Compare and repair; returns the differences, empty if there are none. The caller holds the folder."""
    asked = extensions.applied(sweep_file.load(folder.path / "sweep.yaml"), folder)
    found = [*logs(folder, tracker), *_study(asked, folder, url), *tables(folder)]
    if tracker is not None:
        outcome = SweepOutcome.read(folder)
        found += tracker.audit(results.ended_trials(folder), outcome.state if outcome else SweepState.STOPPED)
    return found


def at_start(folder: SweepFolder, tracker: Tracker) -> list[str]:
    """Repairs at the start of a driver; the tracker is compared while trials run."""
    found = logs(folder, tracker)
    if SweepOutcome.read(folder) is not None:
        found += tables(folder)
    if any((folder.path / "trials").glob("*/result.json")):
        ended = results.ended_trials(folder)
        tracker.check(lambda: ended)
    return found


def study_states(arms: Mapping[str, ArmStudy]) -> dict[tuple[str, int], ConfigurationState]:
    """(arm, configuration) -> its state in the study."""
    return {(name, c.number): c.state for name, arm in arms.items() for c in arm.study.configurations()}


def differences(
    before: Mapping[tuple[str, int], ConfigurationState], arms: Mapping[str, ArmStudy], folder: SweepFolder
) -> list[str]:
    """What the study had not been told `before` a conductor resumed it, and what it was told about trials that are
    gone.
    """
    again = retries.waiting(folder)
    found = []
    for name, arm in arms.items():
        for c in arm.study.configurations():
            known = before.get((name, c.number), c.state)
            if known != c.state:
                found.append(f"study: {name} {c.number} was {known}; told {c.state}")
            elif again.intersection(arm.trial_id(c.number, seed) for seed in arm.tune):
                continue
            elif c.state is not ConfigurationState.RUNNING and c.number not in arm.outcomes:
                found.append(f"study: {name} {c.number} is {c.state}, but its folder is gone; `geosweep run` trains it")
    return found


def _study(asked: Spec, folder: SweepFolder, url: str | None) -> list[str]:
    arms = open_arms(asked, folder, url)
    before = study_states(arms)
    SweepConductor(asked, folder, arms)
    return differences(before, arms, folder)


def logs(folder: SweepFolder, tracker: Remembers | None) -> list[str]:
    """Drop damaged lines; restore what an ended trial lost from the tracker or the table."""
    found = []
    witnessed = seal.witnessed(folder)
    table: dict[str, Points] | None = None
    for path in sorted((folder.path / "trials").glob("*/trial.json")):
        trial, log = path.parent.name, MetricLog(path.with_name("metrics.jsonl"))
        intact = witnessed.get(trial) in (None, seal.trial_digest(folder, trial))
        whole, damage = log.read()
        if intact and not damage:
            continue
        lost: Points = []
        source, result = "", read_result(path.parent)
        if result is not None:
            order = list(result.metrics)
            lost, source = _missing(whole, tracker.recall(trial) if tracker else [], order), "the tracker"
            if not lost:
                table = _from_table(folder) if table is None else table
                lost, source = _missing(whole, table.get(trial, []), order), "the table"
        if lost or damage:
            log.replace([*whole, *lost])
        if lost:
            same = witnessed.get(trial) in (None, seal.trial_digest(folder, trial))
            how = "" if same else ", not byte for byte what it was"
            found.append(
                f"log: {trial} had lost {len(lost)} of {len(whole) + len(lost)} points; restored from {source}{how}"
            )
        elif damage:
            found.append(f"log: {trial} had {damage} damaged lines; dropped")
    return found


def _missing(whole: Points, elsewhere: Points, order: list[str]) -> Points:
    """The points after the intact ones, if `elsewhere` agrees with these and has more; names in `order`."""
    number = len(whole)
    if len(elsewhere) <= number or any(
        json.dumps([a.step, a.metrics], sort_keys=True) != json.dumps([b.step, b.metrics], sort_keys=True)
        for a, b in zip(whole, elsewhere, strict=False)
    ):
        return []
    return [replace(p, metrics={n: p.metrics[n] for n in order if n in p.metrics}) for p in elsewhere[number:]]


def _from_table(folder: SweepFolder) -> dict[str, Points]:
    """Trial -> points, as in the Parquet table; without times."""
    path = folder.results / "metrics.parquet"
    found: dict[str, dict[float, dict[str, float]]] = defaultdict(dict)
    if path.exists():
        for row in pq.read_table(path).to_pylist():
            found[row["trial_id"]].setdefault(row["step"], {})[row["name"]] = row["value"]
    return {t: [LoggedPoint(s, m) for s, m in steps.items()] for t, steps in found.items()}


def tables(folder: SweepFolder) -> list[str]:
    """Rewrite tables that are missing or differ from the trial folders."""
    fresh = parquet.tables(folder)
    stale = {name: _difference(folder.results / f"{name}.parquet", table) for name, table in fresh.items()}
    if any(stale.values()):
        parquet.write(fresh, folder.results)
    return [f"table: {name}.parquet {what}; rewritten" for name, what in stale.items() if what]


def _difference(path: Path, table: pa.Table) -> str:
    """How a stored table differs from what it should hold; empty if it does not."""
    try:
        stored = pq.read_table(path)
    except FileNotFoundError:
        return "was missing"
    except (OSError, ValueError):  # truncated, or not Parquet
        return "was damaged"
    if stored.equals(table):
        return ""
    typed = [c for c in table.column_names if c.startswith(PARAMETER) and c not in stored.column_names]
    if typed and stored.equals(table.drop_columns(typed)):
        return "was from an earlier version, without hyperparameter columns"
    bare = [t.drop_columns([c for c in ("exploratory",) if c in t.column_names]) for t in (stored, table)]
    return "had different stamps" if bare[0].equals(bare[1]) else "differed from the trial folders"
