"""The answer of one sweep: checks first (controls, seal, pairing), then the paired comparison that was declared.

What the caller asks beside the sealed analysis is answered too, and the answer carries a stamp: exploratory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator import results
from orchestrator.compare.evidence import Evidence
from orchestrator.definition.states import Goal
from orchestrator.protocol import controls, seal
from orchestrator.statistics import paired
from orchestrator.statistics.intervals import difference_text
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.significance import floor_of_seeds
from orchestrator.storage.folder import read_json

ALL_PAIRS = "none"
MANY_SEEDS = 200
"""Beyond so many more seeds only that it takes more is said."""


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
        race=read_json(folder.race),
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


def oriented(pair: Mapping[str, Any], goal: Goal) -> dict[str, Any]:
    """The same comparison with the arm that is ahead named first."""
    if goal.sign * pair["difference"] >= 0:
        return dict(pair)
    low, high = pair["interval"]
    below, above = pair["outperforms_interval"]
    other = {"better": "worse", "worse": "better"}
    return {
        **pair,
        "a": pair["b"],
        "b": pair["a"],
        "difference": -pair["difference"],
        "interval": [-high, -low],
        "outperforms": 1 - pair["outperforms"],
        "outperforms_interval": [1 - above, 1 - below],
        "verdict": other.get(pair["verdict"], pair["verdict"]),
    }


def shown(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The comparisons as people read them: the arm ahead first, unless all are against a baseline."""
    if document["baseline"] is not None:
        return [dict(p) for p in document["pairs"]]
    return [oriented(p, document["goal"]) for p in document["pairs"]]


def race_lines(document: Mapping[str, Any]) -> list[str]:
    """Which arms a race stopped and what that does to the comparison, or nothing."""
    race = document.get("race")
    if race is None:
        return []
    looks, counts = ", ".join(map(str, race["looks"])), document["seeds_of"]
    found = [
        f"The arms raced, with looks at {looks} seeds; p is corrected for {len(race['looks']) + 1} tests in time, "
        f"intervals are not. Seeds: {', '.join(f'{arm} {n}' for arm, n in counts.items())}."
    ]
    return found + [f"{arm} was stopped: {one['reason']}." for arm, one in race["stopped"].items()]


def too_few(document: Mapping[str, Any]) -> str:
    """Says when no result at all could have been significant, or nothing."""
    n, k, alpha = len(document["seeds"]), len(document["pairs"]), document["alpha"]
    floor = floor_of_seeds(k, alpha)
    if n >= floor:
        return ""
    return (
        f"{n} seeds cannot settle {k} comparisons: corrected by Holm, p is at least "
        f"{min(1.0, k * 2.0 ** (1 - n)):.2g}. "
        f"Plan {floor} seeds or more, or declare a baseline."
    )


def sentence(pair: Mapping[str, Any], metric: str) -> str:
    """One comparison in plain words."""
    amount = f"{difference_text(pair)} {metric}, p {pair['p_holm']:.2g} (Holm)"
    a, b, n = pair["a"], pair["b"], pair["n"]
    if pair["verdict"] in ("better", "worse"):
        return f"{a} is {pair['verdict']} than {b}: {amount}, ahead on {pair['outperforms']:.0%} of {n} seeds."
    if pair["verdict"] == "equivalent":
        return f"{a} and {b} are equivalent within the margin: {amount}, {n} seeds."
    return f"{a} against {b}, inconclusive: {amount}; {_what_it_takes(pair)}."


def _what_it_takes(pair: Mapping[str, Any]) -> str:
    low, high = pair["interval"]
    if low == high:
        return f"the difference is the same on all {pair['n']} seeds, so that further ones add nothing"
    if pair["more_seeds"] is None:
        return "no number of seeds would settle it"
    return f"{seeds_words(pair['more_seeds'])} might settle it"


def seeds_words(more: int) -> str:
    """So many more seeds; beyond MANY_SEEDS the difference is too small for the number to mean anything."""
    return f"about {more} more seeds" if more <= MANY_SEEDS else f"more than {MANY_SEEDS} more seeds"
