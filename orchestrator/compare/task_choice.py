"""What arms may choose about their task (`statistics.same_task`), and the effect on the amount of work."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from orchestrator.compare.evidence import Evidence
from orchestrator.definition import batches
from orchestrator.definition.parts import TASK, in_section
from orchestrator.definition.space import Parameter
from orchestrator.definition.states import Stage
from orchestrator.statistics.same_task import NOTHING, Choice

UNEQUAL = 0.02
"""Arms whose mean batch sizes differ by more than this fraction did unequal work."""


def of(sweeps: Sequence[Evidence]) -> Choice:
    """The choice shared by all arms of these sweeps; empty where the names belong to a script or to imported
    results.
    """
    if sweeps[0].is_program or sweeps[0].imported:
        return NOTHING
    arms = [one.parameters[arm] for one in sweeps for arm in one.arms]
    names = {name for given in arms for name in in_section(TASK, given)}
    alike = {name for name in names if all(_same(given.get(name), arms[0].get(name)) for given in arms)}
    searched = {name for name in alike if arms[0][name].kind != "constant"}
    free = sweeps[0].declares.free
    fixed = sweeps[0].definition["task"]["parameters"]
    return Choice(
        searched=frozenset(searched),
        asked=frozenset() if free is None else frozenset(n for n in names if n.partition(".")[2] not in free),
        fixed={name: fixed[key] for name in names if (key := name.partition(".")[2]) in fixed},
        declared="; ".join(dict.fromkeys(filter(None, (one.analysis.waive.get("GS116") for one in sweeps)))),
    )


def _same(a: Parameter | None, b: Parameter | None) -> bool:
    return a is not None and b is not None and (a.kind, a.values, a.low, a.high, a.when) == (
        b.kind, b.values, b.low, b.high, b.when
    )  # fmt: skip


def notes(evidence: Evidence) -> list[str]:
    """Notes on arms that chose different batch sizes under a budget that does not count batch contents."""
    counted = evidence.declares.counts
    if evidence.definition["budget"]["unit"] not in ("grad_evals", "steps") or not counted:
        return []
    sizes: dict[str, list[int]] = {}
    with contextlib.suppress(Exception):  # fails for a task whose data is not on this machine
        for t in evidence.records:
            if t.job.stage is Stage.CONFIRM and in_section(TASK, t.job.values):
                sizes.setdefault(t.job.arm, []).append(batches.per_batch(t.job.task, t.job.task_parameters, {}))
    means = {arm: sum(found) / len(found) for arm, found in sizes.items()}
    if not means or max(means.values()) - min(means.values()) <= UNEQUAL * max(means.values()):
        return []
    words = ", ".join(f"{arm} {mean:.4g}" for arm, mean in means.items())
    return [
        f"batches of the confirm trials held unequal numbers of {counted} ({words}), and so did gradient evaluations."
    ]
