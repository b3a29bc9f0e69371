"""Compare several sweeps of one task as if they were one, if their digests show the same seeds and budget.

An arm is shown as `arm@sweep` when the name occurs in two sweeps or when it does not belong to the first sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from orchestrator import results
from orchestrator.compare import currencies, proof, task_choice
from orchestrator.compare.answer import ALL_PAIRS, check
from orchestrator.compare.evidence import Evidence
from orchestrator.protocol import extensions, seal
from orchestrator.statistics import comparison
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.verdict import Verdict
from orchestrator.storage import raced


def answer(
    sweeps: Sequence[Evidence], *, metric: str = "", baseline: str | None = None, margin: float | None = None
) -> Verdict:
    """The comparison over all arms of the sweeps. Raises Refused."""
    first = sweeps[0]
    if alien := next((one for one in sweeps if one.imported), None):
        raise Refused(
            f"{alien.sweep_id} was imported and cannot be compared with other sweeps; import all results in one call"
        )
    for other in sweeps[1:]:
        _comparable(first, other)
    for one in sweeps:
        check(one)
    name, goal = results.reported(first.folder, metric)
    trials = pd.concat([renamed(one, sweeps) for one in sweeps], ignore_index=True)
    margins = [one.analysis.margin for one in sweeps]
    made = comparison.compare(
        trials,
        metric=name,
        goal=goal,
        baseline=None if baseline in (None, ALL_PAIRS) else baseline,
        margin=max(margins) if margin is None else margin,
        parity=max((currencies.parity(one) for one in sweeps), key=lambda parity: parity.within),
        alpha=min(one.analysis.alpha for one in sweeps),
        level=min(extensions.level(one.folder, one.analysis.alpha, one.analysis.looks) for one in sweeps),
        choice=task_choice.of(sweeps),
        bounds=first.bounds(name),
    )
    proofs = proof.of_pairs(trials, [(p.a, p.b) for p in made.pairs], first.definition["budget"])
    currency = currencies.spoken(first)
    stamps = [f"{one.sweep_id}: {stamp}" for one in sweeps for stamp in seal.stamps(one.folder)]
    for other in sweeps[1:]:
        changed = [name for name in seal.other_files(first.folder, other.folder) if _is_optimizer(name)]
        if changed:
            more = f" and {len(changed) - 3} more files" if len(changed) > 3 else ""
            stamps.append(f"{other.sweep_id} ran with different source code: {', '.join(changed[:3])}{more}")
    stamps.append("the sweeps were sealed separately; this comparison was not declared in advance")
    return replace(
        made,
        sweep_id=" ".join(one.sweep_id for one in sweeps),
        pairs=[replace(p, currency=currency, proof=shown) for p, shown in zip(made.pairs, proofs, strict=True)],
        seal=" ".join(seal.sealed_hash(one.folder) for one in sweeps).strip(),
        notes=[*made.notes, *(f"{one.sweep_id}: {n}" for one in sweeps for n in _notes(one))],
        budget=currencies.amount(first),
        exploratory=stamps,
    )


def _notes(one: Evidence) -> list[str]:
    """Notes on one of the sweeps, for the reader."""
    looked = extensions.said(one.folder, one.analysis.alpha, one.analysis.looks)
    return [*currencies.notes(one), *filter(None, [looked])]


def renamed(one: Evidence, sweeps: Sequence[Evidence]) -> pd.DataFrame:
    """The sweep's trials without the twin's, with arm names that are unique across the sweeps."""
    taken = [arm for other in sweeps if other is not one for arm in other.arms]
    names = {arm: f"{arm}@{one.sweep_id}" if arm in taken else arm for arm in one.arms}
    trials = one.trials[one.trials["arm"] != one.twin]
    return trials.assign(arm=trials["arm"].map(names))


def _comparable(first: Evidence, other: Evidence) -> None:
    """Same task, direction and budget. Raises Refused."""
    a, b = first.definition, other.definition
    for what, x, y in (
        ("tasks", a["task"], b["task"]),
        ("tuned metrics", a["metric"], b["metric"]),
        ("budget units", a["budget"]["unit"], b["budget"]["unit"]),
        ("budgets", a["budget"]["per_trial"], b["budget"]["per_trial"]),
        ("numbers of evaluations", a["evaluations"], b["evaluations"]),
        ("numbers of configurations per arm", a["budget"]["trials_per_arm"], b["budget"]["trials_per_arm"]),
        ("numbers of studies", first.studies, other.studies),
        ("tune seeds", a["seeds"]["tune"], b["seeds"]["tune"]),
    ):
        if x != y:
            more = "; for several tasks: geosweep profile" if what == "tasks" else ""
            raise Refused(f"{first.sweep_id} and {other.sweep_id} have different {what}: {x} and {y}{more}")
    changed = [name for name in seal.other_files(first.folder, other.folder) if not _is_optimizer(name)]
    if changed:
        raise Refused(
            f"{first.sweep_id} and {other.sweep_id} ran with different source code ({', '.join(changed[:3])}); "
            "run both with the same code"
        )
    for one in (first, other):
        if raced.read(one.folder):
            raise Refused(
                f"{one.sweep_id} raced its arms, and race bounds hold only within one sweep; "
                "compare it by itself, or run it without stopping.arms"
            )


def _is_optimizer(name: str) -> bool:
    return name.startswith("optim_core/")
