"""Each arm's best configuration, and those that no other beats in every objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from orchestrator.definition.states import Goal, Stage, State
from orchestrator.protocol import feasible, seal
from orchestrator.protocol.feasible import Judged
from orchestrator.results.chosen import ArmChoice
from orchestrator.results.metrics import tuned
from orchestrator.results.trials import ended_trials, tuned_objectives
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial.counted import counted
from orchestrator.trial.job import Job


@dataclass(frozen=True, kw_only=True)
class Best:
    """What the arms chose, with the mean over confirm seeds once there are any."""

    sweep_id: str
    metric: str
    """The tuned one."""
    goal: Goal
    arms: Mapping[str, ArmChoice]
    """Without those that have no value yet."""
    outcome_constraints: Mapping[str, Judged] = field(default_factory=dict)
    """Arm -> how many configurations violate them; empty in a sweep without any."""
    exploratory: Sequence[str] = ()

    def document(self) -> dict[str, Any]:
        """As JSON."""
        judged = {arm: asdict(one) for arm, one in self.outcome_constraints.items()}
        return {
            "schema": "geosweep/best/1",
            "sweep_id": self.sweep_id,
            "metric": self.metric,
            "goal": self.goal,
            "arms": {arm: one.document() for arm, one in self.arms.items()},
            **({"outcome_constraints": judged} if judged else {}),
            "exploratory": self.exploratory,
        }


def best(folder: SweepFolder) -> Best:
    """Each arm's best configuration; its value is None where every trial behind it diverged.

    Over several studies, the arm's value is the mean of theirs, and its configuration is from the study with the best
    search result, not from the one with the best confirm trials.
    """
    metric, goal = tuned(folder)
    rows: dict[tuple[str, int, Stage, int], list[tuple[Job, float, bool]]] = {}
    ended = counted(ended_trials(folder))
    broke = feasible.breaches(folder, ended)
    trained = [(t, t.result.value) for t in ended if t.result.value is not None]
    gone = [t.result.state is State.DIVERGED for t, _ in trained]
    judged = goal.demoted([value for _, value in trained], gone)
    for (t, _), value, lost in zip(trained, judged, gone, strict=True):
        rows.setdefault((t.job.arm, t.job.study, t.job.stage, t.job.configuration), []).append((t.job, value, lost))
    studies: dict[str, dict[int, ArmChoice]] = {}
    values: dict[tuple[str, int], float] = {}
    searched: dict[tuple[str, int], float] = {}
    for (arm, study, stage, _), found in rows.items():
        job, value = found[0][0], sum(value for _, value, _ in found) / len(found)
        if stage is Stage.TUNE and broke.get((arm, study, job.configuration)):
            continue
        if stage is Stage.TUNE:
            searched[arm, study] = goal.best((searched.get((arm, study), value), value))
        old = studies.setdefault(arm, {}).get(study)
        if old is None or (stage is Stage.CONFIRM, goal.sign * value) > (
            old.stage is Stage.CONFIRM,
            goal.sign * values[arm, study],
        ):
            diverged = sum(lost for _, _, lost in found)
            values[arm, study] = value
            studies[arm][study] = ArmChoice(
                value=None if diverged == len(found) else value,
                parameters=job.values,
                lineage=job.lineage,
                trial_id=job.trial_id,
                stage=stage,
                seeds=len(found),
                diverged=diverged,
            )
    several = folder.resolved().studies > 1
    return Best(
        sweep_id=folder.sweep_id,
        metric=metric,
        goal=goal,
        arms={
            arm: _over_studies(arm, found, values, searched, goal) if several else found[1]
            for arm, found in studies.items()
        },
        outcome_constraints=feasible.summary(folder, ended),
        exploratory=seal.stamps(folder),
    )


def _over_studies(
    arm: str,
    studies: Mapping[int, ArmChoice],
    values: Mapping[tuple[str, int], float],
    searched: Mapping[tuple[str, int], float],
    goal: Goal,
) -> ArmChoice:
    """The choice of an arm with several studies.

    `values` and `searched`: of each study, the value of its choice, with what stands in for a diverged one, and the
    best one of its search.
    """
    ended = [i for i, one in studies.items() if one.stage is Stage.CONFIRM] or list(studies)
    favorite = min(ended, key=lambda i: (goal.loss(searched[arm, i]), i))
    gone = all(studies[i].value is None for i in ended)
    return replace(
        studies[favorite],
        value=None if gone else sum(values[arm, i] for i in ended) / len(ended),
        diverged=sum(studies[i].diverged for i in ended),
        study=favorite,
        studies=dict(sorted(studies.items())),
    )


def value_words(value: float | None) -> str:
    """The value of a choice with four digits; `diverged` where there is none."""
    return "diverged" if value is None else f"{value:.4g}"


def infeasible(folder: SweepFolder) -> list[str]:
    """For people: how many configurations violate the outcome constraints, and studies in which all do."""
    return list(feasible.sentences(folder, ended_trials(folder)))


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """A configuration, and its objectives."""

    configuration: int
    parameters: Mapping[str, Any]
    values: Mapping[str, float]
    """Metric -> the mean over the tune seeds; the tuned one comes first."""
    study: int | None = None
    """None: the arm has a single study."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found = asdict(self)
        if self.study is None:
            del found["study"]
        return found


@dataclass(frozen=True, kw_only=True)
class Front:
    """Each arm's configurations that no other dominates."""

    sweep_id: str
    objectives: Mapping[str, Goal]
    arms: Mapping[str, Sequence[Objectives]]
    exploratory: Sequence[str]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        arms = {arm: [one.document() for one in found] for arm, found in self.arms.items()}
        return {"schema": "geosweep/pareto/1", **vars(self), "arms": arms}


def pareto(folder: SweepFolder) -> Front:
    """The Pareto front of each arm."""
    asked = folder.resolved().definition
    goals = {o["name"]: Goal(o["goal"]) for o in (asked["metric"], *asked.get("objectives", []))}
    arms: dict[str, list[Objectives]] = {}
    several = folder.resolved().studies > 1
    broke = feasible.breaches(folder, ended_trials(folder))
    for (arm, study, number), (job, objectives) in tuned_objectives(folder, list(goals)).items():
        if not broke.get((arm, study, number)):
            one = Objectives(
                configuration=number,
                parameters=job.values,
                values=dict(zip(goals, objectives, strict=True)),
                study=study if several else None,
            )
            arms.setdefault(arm, []).append(one)

    def beats(a: Objectives, b: Objectives) -> bool:
        gaps = [goal.loss(a.values[n] - b.values[n]) for n, goal in goals.items()]
        return all(gap <= 0 for gap in gaps) and any(gap < 0 for gap in gaps)

    front = {arm: [r for r in found if not any(beats(o, r) for o in found)] for arm, found in arms.items()}
    return Front(sweep_id=folder.sweep_id, objectives=goals, arms=front, exploratory=seal.stamps(folder))
