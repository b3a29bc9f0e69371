"""Everything that tables and figures are made of, read once from a sweep's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

import optim_core
import trainables
from optim_core import Counting
from orchestrator import results
from orchestrator.definition import yaml12
from orchestrator.definition.space import Parameter
from orchestrator.definition.states import Goal, Stage, State
from orchestrator.protocol import seal
from orchestrator.statistics.intervals import bounds_of as bounds_of
from orchestrator.storage.folder import SweepFolder, read_json
from orchestrator.trial.lineage import describe
from orchestrator.trial.record import TrialRecord
from trainables import Task

TRAINED = [state for state in State if state.is_trained]


@dataclass(frozen=True)
class Evidence:
    """One sweep: its definition, trials and curves."""

    folder: SweepFolder

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """resolved.json."""
        found: dict[str, Any] = read_json(self.folder.path / "resolved.json") or {}
        return found

    @property
    def definition(self) -> dict[str, Any]:
        """What changes results."""
        found: dict[str, Any] = self.resolved["definition"]
        return found

    @property
    def sweep_id(self) -> str:
        """The sweep's id."""
        return self.folder.sweep_id

    @cached_property
    def description(self) -> str:
        """The question that the sweep file asks."""
        path = self.folder.path / "sweep.yaml"
        value = yaml12.parse(path.read_text(encoding="utf-8")).value if path.exists() else {}
        return str(value.get("description", "")) if isinstance(value, dict) else ""

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self.definition["task"]["name"])

    @property
    def tuned(self) -> str:
        """The metric that the search saw."""
        return str(self.definition["metric"]["name"])

    @property
    def reported(self) -> str:
        """The metric that is compared."""
        return str(self.resolved["report_metric"])

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

    def optimizer(self, arm: str) -> type[Counting]:
        """The class of an arm's optimizer, with what it declares; one that is gone declares nothing."""
        try:
            return optim_core.lookup(self.definition["arms"][arm]["optimizer"])
        except KeyError:
            return optim_core.Counting

    @property
    def task_class(self) -> type[Task]:
        """The class of the task, with what it declares; one that is gone declares nothing."""
        try:
            return trainables.lookup(self.task)
        except KeyError:
            return trainables.Task

    @cached_property
    def parameters(self) -> dict[str, dict[str, Parameter]]:
        """Arm -> name -> parameter, as the search knew it."""
        return {
            arm: {p["name"]: Parameter(**{**p, "values": tuple(p["values"])}) for p in given["parameters"]}
            for arm, given in self.definition["arms"].items()
        }

    def tuned_parameters(self, arm: str) -> list[Parameter]:
        """The parameters of an arm that the search could choose."""
        return [p for p in self.parameters[arm].values() if p.kind != "constant" and len(p.values) != 1]

    @cached_property
    def analysis(self) -> dict[str, Any]:
        """The declared analysis in force."""
        usual = {"baseline": None, "margin": 0.0, "alpha": 0.05, "expected_best": True}
        return {**usual, **seal.in_force(self.folder)["analysis"]}

    @cached_property
    def records(self) -> list[TrialRecord]:
        """Every trial that ended."""
        return results.ended_trials(self.folder)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """trials.parquet as a frame, with `configuration` and `value` (the tuned metric as selected)."""
        frame: pd.DataFrame = results.trials_table(self.folder).to_pandas()
        frame["configuration"] = [t.job.configuration for t in self.records]
        frame["value"] = [t.result.value for t in self.records]
        return frame

    @cached_property
    def curves(self) -> pd.DataFrame:
        """metrics.parquet as a frame with arm, stage, seed and seconds (at each trial's mean pace)."""
        points: pd.DataFrame = results.metrics_table(self.folder).to_pandas()
        known = self.trials[["trial_id", "arm", "stage", "seed", "state", "configuration", "grad_evals", "seconds"]]
        found = points.merge(known, on="trial_id")
        found["seconds"] = found["seconds"] * found["step"] / found["grad_evals"].where(found["grad_evals"] > 0)
        return found

    @cached_property
    def configurations(self) -> dict[str, pd.DataFrame]:
        """Arm -> one row per configuration of the search: parameters, `value` (mean over tune seeds), `spread`,
        `state`.

        `random` says whether the configuration was drawn before any result was looked at.
        """
        return {arm: self._configurations(arm) for arm in self.arms}

    def _configurations(self, arm: str) -> pd.DataFrame:
        rows = self.trials[(self.trials["arm"] == arm) & (self.trials["stage"] == Stage.TUNE)]
        found = []
        for number, group in rows.groupby("configuration"):
            row = json.loads(group["parameters"].iloc[0])
            states = set(group["state"])
            row |= {
                "configuration": number,
                "value": float(group["value"].mean()) if group["value"].notna().all() else float("nan"),
                "spread": float(group["value"].std()) if len(group) > 1 else 0.0,
                "state": next((s for s in (State.FAILED, State.DIVERGED, State.PRUNED) if s in states), State.COMPLETE),
                "grad_evals": float(group["grad_evals"].sum()),
            }
            found.append(row)
        frame = pd.DataFrame(found)
        if len(frame):
            frame["random"] = frame.index < self.design_size(arm)
        return frame

    def design_size(self, arm: str) -> int:
        """How many configurations of the arm were drawn without looking at results."""
        method = self.definition["method"]
        asked = self.definition["budget"]["trials_per_arm"]
        if method["name"] in ("grid", "random", "sobol") or asked is None:
            return 10**9
        return round(float(method["random_share"]) * int(asked))

    def chosen(self, arm: str) -> dict[str, Any]:
        """The configuration that went on to the confirm seeds, or the best one of the search so far."""
        rows = self.trials[(self.trials["arm"] == arm) & (self.trials["stage"] == Stage.CONFIRM)]
        if len(rows):
            found: dict[str, Any] = json.loads(rows["parameters"].iloc[0])
            return found
        frame = self.configurations[arm]
        if not len(frame) or frame["value"].isna().all():
            return {}
        best = frame.iloc[int(np.nanargmax(self.sign * frame["value"].to_numpy(dtype=float)))]
        return {p: best[p] for p in self.parameters[arm] if p in best and not _missing(best[p])}

    def settings(self, arm: str) -> dict[str, Any]:
        """`chosen`, for people to read, and with what changed while it trained."""
        trials = [t for t in self.records if t.job.arm == arm and t.job.stage is Stage.CONFIRM]
        return describe(self.chosen(arm), trials[0].job.lineage if trials else ())

    def confirmed(self, metric: str) -> dict[str, list[float]]:
        """Arm -> values of a metric over the confirm seeds, in their order."""
        rows = self.trials[(self.trials["stage"] == Stage.CONFIRM) & self.trials["state"].isin(TRAINED)]
        if metric not in rows:
            return {}
        found = {arm: rows[rows["arm"] == arm].sort_values("seed")[metric].dropna() for arm in self.arms}
        return {arm: [float(v) for v in values] for arm, values in found.items() if len(values)}

    def goal_of(self, metric: str) -> Goal:
        """Direction of a metric of the task."""
        return results.reported(self.folder, metric)[1]

    def ranked(self) -> list[str]:
        """Arms, the best mean of the reported metric first, those without a result last."""
        sign = self.goal_of(self.reported).sign
        found = self.confirmed(self.reported)
        means = {arm: sign * sum(v) / len(v) for arm, v in found.items()}
        return sorted(self.arms, key=lambda arm: -means.get(arm, float("-inf")))


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def numeric(values: Sequence[Any]) -> bool:
    """Whether all are numbers (and not truth values)."""
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def unit_of(metric: str) -> str:
    """The unit that a metric's axis shows."""
    group, _, rest = metric.partition("/")
    units: Mapping[str, str] = {"accuracy": "share correct", "cost": "gradient evaluations", "loss": "mean"}
    return "seconds" if rest.endswith("_s") else units.get(group, "")


def label_of(metric: str) -> str:
    """The metric with its unit, for an axis."""
    unit = unit_of(metric)
    return f"{metric} ({unit})" if unit else metric


def words(parameters: Mapping[str, Any]) -> Iterator[str]:
    """`lr 0.0876`: each parameter in three digits."""
    for name, value in parameters.items():
        yield f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
