"""The trials of a sweep that ended, and their values, from their folders alone; any process can ask at any time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.definition.states import Stage
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial.counted import counted
from orchestrator.trial.job import Job
from orchestrator.trial.record import TrialRecord


def ended_trials(folder: SweepFolder) -> list[TrialRecord]:
    """Every ended trial, ordered by trial id; its job's folder is the current one even if the sweep was moved."""
    paths = sorted((folder.path / "trials").glob("*/result.json"))
    found = (record for path in paths if (record := TrialRecord.read(path.parent)) is not None)
    return [replace(one, job=replace(one.job, folder=folder.address(one.trial_id))) for one in found]


def arm_values(folder: SweepFolder, metric: str, stage: Stage = Stage.CONFIRM) -> dict[str, list[float]]:
    """Final values of `metric` per arm over the trials of a stage, in the order of their seeds.

    For a sweep with several studies, one value per study, in order: the mean over its seeds.
    """
    found: dict[str, dict[int, list[tuple[int, float]]]] = {}
    for t in counted(ended_trials(folder)):
        if t.job.stage is stage and metric in t.result.metrics and t.result.state.is_trained:
            studies = found.setdefault(t.job.arm, {})
            studies.setdefault(t.job.study, []).append((t.job.seed, t.result.metrics[metric]))
    if folder.resolved().studies == 1:
        return {arm: [value for _, value in sorted(studies[1])] for arm, studies in found.items()}
    return {
        arm: [sum(value for _, value in rows) / len(rows) for _, rows in sorted(studies.items())]
        for arm, studies in found.items()
    }


def told_values(
    folder: SweepFolder, names: Sequence[str], *, every: bool = False
) -> dict[tuple[str, int], list[tuple[Mapping[str, Any], list[float]]]]:
    """(arm, study) -> (parameters, objectives) of the configurations trained to the end, in order.

    Objectives are means over the tune seeds; with `every`, a configuration without tune seeds counts with its other
    seeds, as imported results may. Children in a population are left out: their values do not come from a single
    configuration.
    """
    found: dict[tuple[str, int], list[tuple[Mapping[str, Any], list[float]]]] = {}
    for (arm, study, _), (job, objectives) in tuned_objectives(folder, names, every=every).items():
        if not job.lineage:
            found.setdefault((arm, study), []).append((job.values, objectives))
    return found


def tuned_objectives(
    folder: SweepFolder, names: Sequence[str], *, every: bool = False
) -> dict[tuple[str, int, int], tuple[Job, list[float]]]:
    """(arm, study, configuration) -> its first job, and means over its tune seeds of the metrics, the tuned one first.

    Ordered; configurations without a value are left out.
    """
    rows: dict[tuple[str, int, int], list[tuple[Job, list[float]]]] = {}
    for t in ended_trials(folder):
        if (every or t.job.stage is Stage.TUNE) and t.result.value is not None:
            objectives = [t.result.value, *(t.result.metrics.get(name, math.nan) for name in names[1:])]
            rows.setdefault((t.job.arm, t.job.study, t.job.configuration), []).append((t.job, objectives))
    for key, found in rows.items():
        rows[key] = [one for one in found if one[0].stage is Stage.TUNE] or found
    return {
        key: (found[0][0], [sum(column) / len(found) for column in zip(*(each for _, each in found), strict=True)])
        for key, found in sorted(rows.items())
    }
