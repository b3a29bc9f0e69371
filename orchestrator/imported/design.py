"""How imported runs can be compared: which choose, which are compared, and what is paired with what.

    no study column    one search per arm, or none: the unit is the seed, and the verdict is about configurations
    several studies    independent searches, told apart by a column: the unit is the study, the verdict about methods

Where an arm, or a study of it, has several configurations on several seeds, a third of the seeds choose among them and
the others compare, as in our own sweeps; configurations that were not chosen are not compared. Where each configuration
was trained once, the best one of a study represents it by the very value that it was chosen for, which is stated;
without studies nothing can be compared.

Seeds are paired when every arm has them (six at least), studies when every arm has the same ones with the same seeds.
Whoever imports the runs vouches that equal names mean equal data and initial weights.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from orchestrator.definition.states import Stage, State
from orchestrator.imported.roles import Question, Roles
from orchestrator.imported.rows import Row, goal_of
from orchestrator.statistics.pairing import FLOOR
from orchestrator.storage.foreign_runs import UnusableError, listed

Pairing = Literal["declared", "none"]
CONFIRM_FROM, LARGEST = 1000, 2**63


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A run in the resulting sweep."""

    row: Row
    stage: Stage
    study: int
    configuration: int
    seed: int = 0


@dataclass(kw_only=True)
class Design:
    """All runs in their places."""

    pairing: Pairing
    studies: int
    """For the arm with the most."""
    placed: list[Placed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_compared: str = ""
    """Why nothing can be compared."""

    def confirm(self) -> list[Placed]:
        """What is compared."""
        return [one for one in self.placed if one.stage is Stage.CONFIRM]


def designed(rows: Sequence[Row], role: Roles, question: Question) -> Design:
    """The design. Raises UnusableError if --tune-seeds names unknown seeds."""
    if not role.seed:
        rows = _numbered(rows)
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault(row.arm, {}).setdefault(row.study, []).append(row)
    several = any(len(studies) > 1 for studies in groups.values())
    choosers = _choosers(role, question, groups)
    design = Design(pairing="none", studies=max(map(len, groups.values())))
    for arm, studies in groups.items():
        for number, study in enumerate(sorted(studies, key=_order), 1):
            design.placed += _placed(studies[study], number, choosers[arm, study], role, several=several)
    if any(choosers.values()):
        design.notes.append(_choosing(role, choosers))
    if several:
        _pair_studies(design, groups, role, question)
    else:
        _pair_seeds(design, role, question)
    return design


def _numbered(rows: Sequence[Row]) -> list[Row]:
    """Without a seed column, repeats of a configuration are counted."""
    seen: Counter[tuple[str, str, str]] = Counter()
    found = []
    for row in rows:
        key = (row.arm, row.study, _key(row))
        found.append(replace(row, seed=str(seen[key])))
        seen[key] += 1
    return found


def _order(label: str) -> tuple[int, float, str]:
    """Numbers by size, before text."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


def _key(row: Row) -> str:
    return json.dumps(row.parameters, sort_keys=True, default=str)


def _choosers(
    role: Roles, question: Question, groups: Mapping[str, Mapping[str, Sequence[Row]]]
) -> dict[tuple[str, str], set[str]]:
    """(arm, study) -> the seeds that choose its configuration; none if there is nothing to choose, or no seed left.

    They are a third of the seeds that all arms have in the study, or of its own where the arms share fewer than two.
    """
    seeds = {(arm, study): {row.seed for row in own} for arm, found in groups.items() for study, own in found.items()}
    there = set().union(*seeds.values())
    if question.tune_seeds:
        unknown = [seed for seed in question.tune_seeds if seed not in there]
        if unknown or not role.seed:
            raise UnusableError(
                f"--tune-seeds: {listed(unknown)} is not a seed; available: {listed(sorted(there, key=_order))}"
            )
        return {key: set(question.tune_seeds) for key in seeds}
    searches = [own for studies in groups.values() for own in studies.values()]
    if not any(len({_key(row) for row in own}) > 1 and _repeats(own) > 1 for own in searches):
        return {key: set() for key in seeds}
    found: dict[tuple[str, str], set[str]] = {}
    for (arm, study), own in seeds.items():
        shared = set.intersection(*(other for (_, label), other in seeds.items() if label == study))
        ordered = sorted(shared if len(shared) > 1 else own, key=_order)
        found[arm, study] = set(ordered[: max(1, len(ordered) // 3)])
    return found


def _repeats(own: Sequence[Row]) -> int:
    """The number of seeds of the configuration trained most often."""
    return max(Counter(map(_key, own)).values())


def _choosing(role: Roles, choosers: Mapping[tuple[str, str], set[str]]) -> str:
    """Which seeds chose."""
    sets = {tuple(sorted(found, key=_order)) for found in choosers.values()}
    one = next(iter(sets)) if len(sets) == 1 else ()
    what = f"{role.seed} {listed(one)}" if one and role.seed else "the first third of the seeds of each"
    return (
        f"arms have several configurations: {what} chose the best one, the others compare (--tune-seeds selects "
        "others; --arm with another column compares configurations)"
    )


def _placed(own: Sequence[Row], study: int, choosers: set[str], role: Roles, *, several: bool) -> list[Placed]:
    """The runs of one study of one arm; without runs on other seeds of configurations that were not chosen."""
    number = {key: i for i, key in enumerate(dict.fromkeys(map(_key, own)))}

    def place(row: Row, stage: Stage) -> Placed:
        return Placed(row=row, stage=stage, study=study, configuration=number[_key(row)])

    ended = [row for row in own if row.state is not State.PRUNED]
    found = [place(row, Stage.TUNE) for row in own if row.state is State.PRUNED]
    if len(number) == 1 or choosers:
        tune = [row for row in ended if row.seed in choosers]
        best = _best(tune, role) if tune else next(iter(number))
        found += [place(row, Stage.TUNE) for row in tune]
        return found + [place(r, Stage.CONFIRM) for r in ended if r.seed not in choosers and _key(r) == best]
    found += [place(row, Stage.TUNE) for row in ended]
    if several and ended:
        metric, goal = goal_of(role)
        found.append(place(min(ended, key=lambda row: goal.loss(row.metrics[metric])), Stage.CONFIRM))
    return found


def _best(rows: Sequence[Row], role: Roles) -> str:
    """The configuration with the best mean, among those trained on most of the choosing seeds."""
    metric, goal = goal_of(role)
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(_key(row), []).append(row.metrics[metric])
    most = max(map(len, values.values()))
    means = {key: sum(found) / most for key, found in values.items() if len(found) == most}
    return min(means, key=lambda key: goal.loss(means[key]))


def _pair_seeds(design: Design, role: Roles, question: Question) -> None:
    """For one study per arm: seeds shared by all arms are paired."""
    confirm = design.confirm()
    arms = list(dict.fromkeys(one.row.arm for one in confirm))
    sets = {arm: {one.row.seed for one in confirm if one.row.arm == arm} for arm in arms}
    common = set.intersection(*sets.values()) if sets else set()
    if not confirm:
        design.not_compared = (
            "every configuration was trained once, so the best one of an arm is known only by the "
            "value that it was chosen for; train it again on other seeds, or import several searches (--study)"
        )
        design.notes.append(f"nothing is compared: {design.not_compared}")
    elif question.unpaired or not role.seed:
        why = "as asked" if question.unpaired else "there is no seed column, and runs are numbered in order"
        design.notes.append(f"not paired: {why}")
    elif len(common) < FLOOR:
        design.notes.append(f"not paired: the arms share {len(common)} seeds, but a paired test needs {FLOOR}")
    else:
        design.pairing = "declared"
        alone = {arm: sorted(seeds - common, key=_order) for arm, seeds in sets.items() if seeds - common}
        if alone:
            named = "; ".join(f"{arm} {listed(seeds, 5)}" for arm, seeds in alone.items())
            design.notes.append(f"seeds that not every arm has are left out: {named}")
        design.placed = [one for one in design.placed if one.stage is not Stage.CONFIRM or one.row.seed in common]
    _number(design)


def _pair_studies(design: Design, groups: Mapping[str, Mapping[str, object]], role: Roles, question: Question) -> None:
    """For several studies per arm: studies that all arms have are paired."""
    names = {arm: set(studies) for arm, studies in groups.items()}
    seeds: dict[str, list[tuple[int, str]]] = {arm: [] for arm in groups}
    tuned = {(one.row.arm, one.study) for one in design.placed if one.stage is Stage.TUNE}
    for one in design.confirm():
        trained_again = (one.row.arm, one.study) not in tuned or bool(role.seed)
        seeds[one.row.arm].append((one.study, one.row.seed if trained_again and role.seed else ""))
    chosen_by_it = any(
        one.row in [other.row for other in design.confirm() if (other.row.arm, other.study) == (one.row.arm, one.study)]
        for one in design.placed
        if one.stage is Stage.TUNE
    )
    if chosen_by_it:
        design.notes.append(
            "a study counts with the best value of its search, which was chosen for that value: it is too "
            "good, and more so for longer searches"
        )
    same = len({frozenset(found) for found in names.values()}) == 1
    if not chosen_by_it:
        same = same and len({tuple(sorted(found)) for found in seeds.values()}) == 1
    if question.unpaired or not same or not question.study:
        why = "the arms have different studies, or different seeds in them" if not same else "as asked"
        if same and not question.study:
            why = (
                f"studies with the same name are not declared to belong together; declare it with --study {role.study}"
            )
        design.notes.append(f"not paired: {why}")
    else:
        design.pairing = "declared"
    _number(design, again=chosen_by_it)


def _number(design: Design, *, again: bool = False) -> None:
    """Whole numbers for seeds: their own if they are such and there is one study per arm; else counted.

    Confirm seeds are distinct from tune seeds. `again`: a study's best run appears a second time.
    """
    own = design.studies == 1 and all(
        one.row.seed.isascii() and one.row.seed.isdigit() and int(one.row.seed) < LARGEST for one in design.placed
    )
    if own:
        design.placed = [replace(one, seed=int(one.row.seed)) for one in design.placed]
        return
    found: dict[Stage, dict[tuple[int, str], int]] = {}
    for stage, start in ((Stage.TUNE, 0), (Stage.CONFIRM, CONFIRM_FROM)):
        labels = {
            (one.study, "" if again and stage is Stage.CONFIRM else one.row.seed)
            for one in design.placed
            if one.stage is stage
        }
        first = max(start, len(found.get(Stage.TUNE, {})))
        ordered = sorted(labels, key=lambda label: (label[0], _order(label[1])))
        found[stage] = {label: first + i for i, label in enumerate(ordered)}
    design.placed = [
        replace(
            one,
            seed=found[one.stage][one.study, "" if again and one.stage is Stage.CONFIRM else one.row.seed],
        )
        for one in design.placed
    ]
