"""Everything that tables and figures are based on, read once from a sweep's folder.

With several studies per arm, the units shown are the studies; otherwise they are the confirm seeds of the one study.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import optim_core
from orchestrator import parquet, results
from orchestrator.definition import optimizer_record, task_record, yaml12
from orchestrator.definition.columns import SELECTED, TOKENS, of_parameter
from orchestrator.definition.currency import WORDS
from orchestrator.definition.kinds import is_composite, short
from orchestrator.definition.model import AnalysisSpec, twin_of
from orchestrator.definition.program_keys import NAME
from orchestrator.definition.resolved import NEVER, Resolved
from orchestrator.definition.space import Parameter, is_number
from orchestrator.definition.states import Goal, Stage, State
from orchestrator.definition.task_record import Declares
from orchestrator.protocol import seal
from orchestrator.statistics.intervals import bounds_of
from orchestrator.statistics.pairing import Unit
from orchestrator.storage.documents import reading
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial.counted import counted
from orchestrator.trial.lineage import describe
from orchestrator.trial.record import TrialRecord

if TYPE_CHECKING:
    from optim_core import Counting

TRAINED = [state for state in State if state.is_trained]


@dataclass(frozen=True)
class Evidence:
    """One sweep: its definition, trials and curves."""

    folder: SweepFolder
    _chosen: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _units: dict[str, dict[str, dict[int, list[float]]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def resolved(self) -> Resolved:
        """What the sweep is."""
        return self.folder.resolved()

    @property
    def definition(self) -> dict[str, Any]:
        """The part of the definition that changes results."""
        return self.resolved.definition

    @property
    def sweep_id(self) -> str:
        """The sweep's id."""
        return self.folder.sweep_id

    @cached_property
    def description(self) -> str:
        """The question that the sweep file asks."""
        with reading(self.folder.path / "sweep.yaml"):
            value = yaml12.parse(self.folder.text()).value
        return str(value.get("description", "")) if isinstance(value, dict) else ""

    @property
    def imported(self) -> str:
        """For results that others trained: who vouches for their pairing; otherwise empty."""
        found = self.resolved.imported
        return seal.PAIRINGS[found.pairing] if found else ""

    @property
    def is_paired(self) -> bool:
        """Whether equal seeds, or studies, of two arms are paired."""
        return self.resolved.imported is None or self.resolved.imported.is_paired

    @property
    def task(self) -> str:
        """The task's name; for a script, its file."""
        task = self.definition["task"]
        return str(task["parameters"]["program"] if task["name"] == NAME else task["name"])

    @property
    def is_program(self) -> bool:
        """Whether trials run a user's script."""
        return bool(self.definition["task"]["name"] == NAME)

    @property
    def steps_of_curves(self) -> str:
        """What the steps of curves count: gradient evaluations, or for a script the unit of its budget."""
        return WORDS[self.definition["budget"]["unit"] if self.is_program else "grad_evals"]

    @property
    def tuned(self) -> str:
        """The metric that the search optimizes."""
        return str(self.definition["metric"]["name"])

    @property
    def reported(self) -> str:
        """The metric that is compared."""
        return self.resolved.report_metric

    @property
    def goal(self) -> Goal:
        """Direction of the tuned metric."""
        return Goal(self.definition["metric"]["goal"])

    @property
    def sign(self) -> float:
        """1 when larger is better, else -1."""
        return self.goal.sign

    @property
    def arms(self) -> list[str]:
        """Arms in the order of the file."""
        return list(self.definition["arms"])

    @property
    def studies(self) -> int:
        """Independent searches of each arm."""
        return self.resolved.studies

    @property
    def unit(self) -> Unit:
        """The unit of analysis: a study, or a confirm seed if there is only one study."""
        return "study" if self.studies > 1 else "seed"

    @cached_property
    def twin(self) -> str:
        """The arm that is an identical copy of the baseline; empty if none."""
        return twin(self.folder)

    def optimizer_declares(self, arm: str) -> optimizer_record.Declares:
        """What an arm's optimizer declares to readers of results."""
        return optimizer_record.of_sweep(self.resolved, self.definition["arms"][arm]["optimizer"])

    def optimizer(self, arm: str) -> type[Counting]:
        """The class of an arm's optimizer, with its declarations; a class that no longer exists declares nothing."""
        if not self.definition["arms"][arm]["optimizer"]:  # a script's
            return optim_core.Counting
        try:
            return optim_core.lookup(self.definition["arms"][arm]["optimizer"])
        except KeyError:
            return optim_core.Counting

    @cached_property
    def declares(self) -> Declares:
        """What the task declares; a task that no longer exists and left no record declares nothing."""
        try:
            return task_record.of_sweep(self.resolved)
        except KeyError:
            return Declares(metrics={})

    @cached_property
    def answers(self) -> dict[Any, Any]:
        """Question -> answer, for what was asked of this evidence (see `compare.answer`)."""
        return {}

    @cached_property
    def parameters(self) -> dict[str, dict[str, Parameter]]:
        """Arm -> name -> parameter, as the search saw it."""
        return {
            arm: {p["name"]: Parameter(**{**p, "values": tuple(map(plain, p["values"]))}) for p in given["parameters"]}
            for arm, given in self.definition["arms"].items()
        }

    def tuned_parameters(self, arm: str) -> list[Parameter]:
        """The parameters of an arm that the search could choose."""
        return [p for p in self.parameters[arm].values() if p.kind != "constant" and len(p.values) != 1]

    @cached_property
    def analysis(self) -> AnalysisSpec:
        """The declared analysis in force."""
        return seal.analysis(self.folder)

    @cached_property
    def records(self) -> list[TrialRecord]:
        """Every ended trial that counts."""
        return counted(results.ended_trials(self.folder))

    @cached_property
    def notes(self) -> list[str]:
        """What was corrected in the trials' values."""
        return []

    @cached_property
    def trials(self) -> pd.DataFrame:
        """trials.parquet as a frame, with `configuration`, `proof`, SELECTED (the tuned metric as selected), TOKENS."""
        frame: pd.DataFrame = parquet.trials_table(self.folder, self.records).to_pandas()
        frame["configuration"] = [t.job.configuration for t in self.records]
        frame[SELECTED] = [t.result.value for t in self.records]
        if (frame["state"] == State.DIVERGED).any():
            goals = {SELECTED: self.goal, self.tuned: self.goal}
            if self.reported != self.tuned:
                goals[self.reported] = results.reported(self.folder)[1]
            for column, goal in goals.items():
                self._demote(frame, column, goal)
        if self.definition["budget"]["unit"] == "tokens":
            given = float(self.definition["budget"]["per_trial"])
            frame[TOKENS] = [t.result.grad_evals * given / t.job.budget for t in self.records]
        frame["proof"] = pd.Series([dict(t.result.proof) for t in self.records], index=frame.index, dtype=object)
        return frame

    def _demote(self, frame: pd.DataFrame, column: str, goal: Goal) -> None:
        """Make the stand-in value of diverged trials no better than the worst trial that trained; note any change."""
        if column not in frame:
            return
        has = frame[column].notna().to_numpy()
        values, gone = frame.loc[has, column], frame.loc[has, "state"] == State.DIVERGED
        judged = goal.demoted(list(values), list(gone))
        if column != SELECTED and judged != list(values):
            self.notes.append(
                f"{column}: the value that the task declares for diverged trials ({values[gone].iloc[0]:g}) is better "
                "than some trials that trained; the worst of those is used instead."
            )
        frame.loc[has, column] = judged

    @cached_property
    def curves(self) -> pd.DataFrame:
        """metrics.parquet as a frame with arm, study, stage, seed and seconds (at each trial's mean pace)."""
        points: pd.DataFrame = parquet.metrics_table(self.folder, self.records).to_pandas()
        known = ["trial_id", "arm", "study", "stage", "seed", "state", "configuration", "grad_evals", "seconds"]
        found = points.merge(self.trials[known], on="trial_id")
        whole = found.groupby("trial_id")["step"].transform("max") if self.is_program else found["grad_evals"]
        found["seconds"] = found["seconds"] * found["step"] / whole.where(whole > 0)
        return found

    @cached_property
    def configurations(self) -> dict[str, pd.DataFrame]:
        """Arm -> one row per configuration of each study: `param.NAME`, `value` (mean over tune seeds), `spread`,
        `state`.

        `random` says whether the configuration was drawn before any result of its study was seen.
        """
        return {arm: self._configurations(arm) for arm in self.arms}

    def _configurations(self, arm: str) -> pd.DataFrame:
        rows = self.trials[(self.trials["arm"] == arm) & (self.trials["stage"] == Stage.TUNE)]
        found = []
        for (study, number), group in rows.groupby(["study", "configuration"]):
            values = _plain_values(group["parameters"].iloc[0])
            row = {of_parameter(name): value for name, value in values.items()}
            states = set(group["state"])
            counts = group[SELECTED].notna().all() and ("feasible" not in group or group["feasible"].ne(False).all())
            row |= {
                "study": study,
                "configuration": number,
                "value": float(group[SELECTED].mean()) if counts else float("nan"),
                "spread": float(group[SELECTED].std()) if len(group) > 1 else 0.0,
                "state": next((s for s in (State.FAILED, State.DIVERGED, State.PRUNED) if s in states), State.COMPLETE),
                "grad_evals": float(group["grad_evals"].sum()),
            }
            found.append(row)
        frame = pd.DataFrame(found)
        if len(frame):
            frame["random"] = frame.groupby("study").cumcount() < self.design_size(arm)
        return frame

    def design_size(self, arm: str) -> int:
        """How many configurations per study of the arm were drawn without looking at results."""
        if self.imported:
            return 0  # how they were chosen is unknown
        method = self.definition["method"]
        asked = self.resolved.first_trials_per_arm
        asked = self.definition["budget"]["trials_per_arm"] if asked == NEVER else asked
        if method["name"] in ("grid", "random", "sobol") or asked is None:
            return 10**9
        return round(float(method["random_share"]) * int(asked))

    def chosen(self, arm: str) -> dict[int, dict[str, Any]]:
        """Study -> the configuration that went on to the confirm stage, or the best one of its search so far.

        Studies that have neither are omitted.
        """
        self._chosen[arm] = self._chosen.get(arm) or self._chosen_of(arm)
        return {study: dict(given) for study, given in self._chosen[arm].items()}

    def _chosen_of(self, arm: str) -> dict[int, dict[str, Any]]:
        rows = self.trials[(self.trials["arm"] == arm) & (self.trials["stage"] == Stage.CONFIRM)]
        found: dict[int, dict[str, Any]] = {
            int(group["study"].iloc[0]): _plain_values(group["parameters"].iloc[0])
            for _, group in rows.groupby("study")
        }
        frame = self.configurations[arm]
        for _, group in frame.groupby("study") if len(frame) else ():
            study = int(group["study"].iloc[0])
            if study not in found and not group["value"].isna().all():
                best = group.iloc[int(np.nanargmax(self.sign * group["value"].to_numpy(dtype=float)))]
                given = {p: best.get(of_parameter(p)) for p in self.parameters[arm]}
                found[study] = {p: value for p, value in given.items() if not _missing(value)}
        return dict(sorted(found.items()))

    def settings(self, arm: str) -> dict[int, dict[str, Any]]:
        """`chosen` for people to read, including values that changed during training."""
        confirm = [t for t in self.records if t.job.arm == arm and t.job.stage is Stage.CONFIRM]
        lineage = {t.job.study: t.job.lineage for t in reversed(confirm)}
        return {study: describe(given, lineage.get(study, ())) for study, given in self.chosen(arm).items()}

    def units(self, metric: str) -> dict[str, dict[int, list[float]]]:
        """Arm -> unit -> values of a metric over its confirm seeds, in order; units are studies or seeds."""
        if metric not in self._units:
            self._units[metric] = self._units_of(metric)
        return self._units[metric]

    def _units_of(self, metric: str) -> dict[str, dict[int, list[float]]]:
        rows = self.trials[(self.trials["stage"] == Stage.CONFIRM) & self.trials["state"].isin(TRAINED)]
        if metric not in rows:
            return {}
        rows = rows.dropna(subset=[metric]).sort_values(["study", "seed"])
        found: dict[str, dict[int, list[float]]] = {}
        for arm in self.arms:
            for _, group in rows[rows["arm"] == arm].groupby(self.unit):
                found.setdefault(arm, {})[int(group[self.unit].iloc[0])] = [float(v) for v in group[metric]]
        return found

    def confirmed(self, metric: str) -> dict[str, list[float]]:
        """Arm -> one value of a metric per unit, in order: the mean over a study's confirm seeds."""
        return {
            arm: [sum(values) / len(values) for values in units.values()] for arm, units in self.units(metric).items()
        }

    @cached_property
    def _bounds(self) -> dict[str, tuple[float, float]]:
        return {}

    def bounds(self, metric: str) -> tuple[float, float]:
        """The range of a metric, to which its intervals are clipped."""
        if metric not in self._bounds:
            values = self.trials[metric].dropna() if metric in self.trials else ()
            self._bounds[metric] = bounds_of(metric, values, results.declared_bounds(self.folder, metric))
        return self._bounds[metric]

    @cached_property
    def _goals(self) -> dict[str, Goal]:
        return {}

    def goal_of(self, metric: str) -> Goal:
        """Direction of a metric of the task."""
        if metric not in self._goals:
            self._goals[metric] = results.reported(self.folder, metric)[1]
        return self._goals[metric]

    def ranked(self) -> list[str]:
        """Arms sorted by the mean of the reported metric, best first; those without a result next, the twin last."""
        sign = self.goal_of(self.reported).sign
        found = self.confirmed(self.reported)
        means = {arm: sign * sum(v) / len(v) for arm, v in found.items()}
        return sorted(self.arms, key=lambda arm: (arm == self.twin, -means.get(arm, float("-inf"))))


def twin(folder: SweepFolder) -> str:
    """The arm of a sweep that is an identical copy of its baseline; empty if none."""
    declared = seal.analysis(folder)
    return twin_of(declared.baseline) if declared.twin and declared.baseline else ""


def plain(value: Any) -> Any:
    """A list or mapping as text, which a column of a frame can hold and group by; any other value unchanged."""
    return short(value) if is_composite(value) else value


def _plain_values(parameters: str) -> dict[str, Any]:
    return {name: plain(value) for name, value in json.loads(parameters).items()}


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def numeric(values: Sequence[Any]) -> bool:
    """Whether all are numbers (not booleans)."""
    return all(map(is_number, values))


def unit_of(metric: str) -> str:
    """The unit shown on a metric's axis."""
    group, _, rest = metric.partition("/")
    units: Mapping[str, str] = {"accuracy": "share correct", "cost": "gradient evaluations", "loss": "mean"}
    return "seconds" if rest.endswith("_s") else units.get(group, "")


def label_of(metric: str) -> str:
    """The metric with its unit, for an axis label."""
    return f"{metric} ({unit})" if (unit := unit_of(metric)) else metric


def words(parameters: Mapping[str, Any]) -> Iterator[str]:
    """`lr 0.0876`: each parameter with three digits."""
    for name, value in parameters.items():
        yield f"{name} {short(value)}"
