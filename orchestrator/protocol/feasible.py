"""Which configurations satisfy the outcome constraints, from a sweep's folder alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.definition.outcome import OutcomeConstraint, broken, parsed
from orchestrator.definition.states import Stage
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial.record import TrialRecord

Key = tuple[str, int, int]
"""(arm, study, number of the configuration)."""


def constraints(folder: SweepFolder) -> list[OutcomeConstraint]:
    """The outcome constraints of a sweep."""
    return [parsed(text) for text in folder.resolved().definition.get("outcome_constraints", ())]


def breaches(folder: SweepFolder, ended: Sequence[TrialRecord]) -> dict[Key, list[OutcomeConstraint]]:
    """Configuration -> the constraints that its mean over tune seeds violates; empty for a sweep without any.

    Configurations of which a trial failed are left out.
    """
    known = constraints(folder)
    rows: dict[Key, list[TrialRecord]] = {}
    for t in ended if known else ():
        if t.job.stage is Stage.TUNE:
            rows.setdefault((t.job.arm, t.job.study, t.job.configuration), []).append(t)
    return {
        key: [
            c for c, amount in zip(known, broken(known, [t.result.metrics for t in found]), strict=True) if amount > 0
        ]
        for key, found in sorted(rows.items())
        if all(t.result.state.is_trained or t.result.stopped is not None for t in found)
    }


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How many configurations of an arm were judged and violate a constraint."""

    configurations: int
    infeasible: int
    studies_without: Sequence[int]
    """Studies without a feasible one."""


def summary(folder: SweepFolder, ended: Sequence[TrialRecord]) -> dict[str, Judged]:
    """Arm -> its configurations; empty for a sweep without constraints."""
    arms: dict[str, dict[int, list[bool]]] = {}
    for (arm, study, _), broke in breaches(folder, ended).items():
        arms.setdefault(arm, {}).setdefault(study, []).append(bool(broke))
    return {
        arm: Judged(
            configurations=sum(map(len, studies.values())),
            infeasible=sum(map(sum, studies.values())),
            studies_without=[study for study, broke in studies.items() if all(broke)],
        )
        for arm, studies in arms.items()
    }


def sentences(folder: SweepFolder, ended: Sequence[TrialRecord]) -> Iterator[str]:
    """For people: how many violate the constraints, and which studies have nothing to confirm."""
    known = constraints(folder)
    limits = " and ".join(map(str, known))
    if measured := {name for t in ended for name in t.result.metrics}:
        for name in dict.fromkeys(c.metric for c in known if c.metric not in measured):
            yield f"{name} was not measured in any trial, so no configuration is feasible"
    for arm, row in summary(folder, ended).items():
        if row.infeasible:
            yield f"{arm}: {row.infeasible} of {row.configurations} configurations violate {limits}"
        if row.studies_without:
            which = ", ".join(map(str, row.studies_without))
            words = f"studies {which} have" if len(row.studies_without) > 1 else f"study {which} has"
            yield f"{arm}: {words} no feasible configuration, and none to confirm; loosen the limit, or search longer"
