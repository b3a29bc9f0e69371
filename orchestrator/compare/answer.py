"""The answer of one sweep: checks first (controls, seal, pairing), then the paired comparison that was declared.

What the caller asks beside the sealed analysis is answered too, and the answer carries a stamp: exploratory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator import controls, results, seal
from orchestrator.compare import paired
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.pairing import Refused

ALL_PAIRS = "none"


def answer(
    evidence: Evidence, *, metric: str = "", baseline: str | None = None, margin: float | None = None
) -> dict[str, Any]:
    """The `compare` document. Raises Refused with the reason.

    `baseline` None: as sealed; "none": all pairs. `margin` None: as sealed.
    """
    folder, declared = evidence.folder, evidence.analysis
    check(evidence)
    name, goal = results.reported(folder, metric)
    against = declared["baseline"] if baseline is None else baseline
    within = declared["margin"] if margin is None else margin
    document = paired.compare(
        evidence.trials,
        metric=name,
        goal=goal,
        baseline=None if against in (None, ALL_PAIRS) else against,
        margin=within,
        alpha=declared["alpha"],
    )
    exploratory = seal.stamps(folder)
    for word, asked, sealed in (
        ("metric", name, evidence.reported),
        ("baseline", document["baseline"], declared["baseline"]),
        ("margin", within, declared["margin"]),
    ):
        if asked != sealed:
            exploratory.append(f"{word} {asked} was asked for, {sealed} was declared")
    return {**document, "seal": seal.sealed_hash(folder), "exploratory": exploratory}


def check(evidence: Evidence) -> None:
    """Raises Refused when a control failed or when what was sealed or recorded was changed."""
    bad = controls.failed(evidence.folder)
    if bad:
        raise Refused("; ".join(bad))
    wrong = seal.verify(evidence.folder)["problems"]
    if wrong:
        more = f" (and {len(wrong) - 3} more: geosweep verify {evidence.sweep_id})" if len(wrong) > 3 else ""
        raise Refused(f"the sweep was changed after the fact: {'; '.join(wrong[:3])}{more}")


def sentence(pair: Mapping[str, Any], metric: str) -> str:
    """One comparison in plain words."""
    low, high = pair["interval"]
    amount = f"{pair['difference']:+.4g} {metric} [{low:+.4g}, {high:+.4g}], p = {pair['p_holm']:.2g} (Holm)"
    a, b, n = pair["a"], pair["b"], pair["n"]
    if pair["verdict"] in ("better", "worse"):
        return f"{a} is {pair['verdict']} than {b}: {amount}, ahead on {pair['outperforms']:.0%} of {n} seeds."
    if pair["verdict"] == "equivalent":
        return f"{a} and {b} are equivalent within the margin: {amount}, {n} seeds."
    tail = f"about {pair['more_seeds']} more seeds might settle it" if pair["more_seeds"] else "no number of seeds would"
    return f"{a} against {b} is inconclusive: {amount}, {n} seeds; {tail}."
