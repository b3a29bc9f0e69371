"""The answer of one sweep: first the checks (controls, seal, pairing), then the declared paired comparison.

Questions that go beyond the sealed analysis are answered too, but the answer is stamped exploratory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from orchestrator import results
from orchestrator.compare import currencies, proof, task_choice
from orchestrator.compare.evidence import Evidence
from orchestrator.definition.states import Goal, Stage
from orchestrator.protocol import controls, extensions, feasible, seal
from orchestrator.statistics import comparison, unpaired
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.sentences import notes, sentence, too_few
from orchestrator.statistics.verdict import AtEqualSeconds, LookTaken, Pair, Settled, Verdict
from orchestrator.storage import raced
from orchestrator.trial import noticed

__all__ = ["ALL_PAIRS", "answer", "check", "notes", "oriented", "sentence", "shown", "too_few"]
ALL_PAIRS = "none"


def answer(
    evidence: Evidence, *, metric: str = "", baseline: str | None = None, margin: float | None = None
) -> Verdict:
    """The comparison. Raises Refused with the reason.

    `baseline` None: as sealed; "none": all pairs. `margin` None: as sealed. Repeating a question does not count as
    another look.
    """
    asked = (metric, baseline, margin)
    if asked not in evidence.answers:
        try:
            evidence.answers[asked] = _answer(evidence, metric=metric, baseline=baseline, margin=margin)
        except Refused as reason:
            evidence.answers[asked] = reason
    found = evidence.answers[asked]
    if isinstance(found, Refused):
        raise Refused(str(found))
    assert isinstance(found, Verdict)
    return found


def _answer(evidence: Evidence, *, metric: str, baseline: str | None, margin: float | None) -> Verdict:
    folder, declared = evidence.folder, evidence.analysis
    check(evidence)
    _every_study_obeys(evidence)
    name, goal = results.reported(folder, metric)
    against = declared.baseline if baseline is None else baseline
    within = declared.margin if margin is None else margin
    question: dict[str, Any] = {"metric": name, "goal": goal, "margin": within, "alpha": declared.alpha}
    question |= {"baseline": None if against in (None, ALL_PAIRS) else against, "parity": currencies.parity(evidence)}
    question |= {"bounds": evidence.bounds(name)}
    level = extensions.level(folder, declared.alpha, declared.looks)
    try:
        made = _compared(evidence, question, level)
    except Refused as reason:
        why = evidence.resolved.imported.not_compared if evidence.resolved.imported else ""
        raise Refused("; ".join(filter(None, [str(reason), why]))) from None
    told = [
        *made.notes,
        *_unplanned(evidence),
        *evidence.notes,
        *currencies.notes(evidence),
        *noticed.unread(evidence.records),
        *noticed.reused_words(noticed.reused(evidence.records)),
        *task_choice.notes(evidence),
        *results.infeasible(evidence.folder),
    ]
    exploratory = seal.stamps(folder)
    for word, asked, sealed in (
        ("metric", name, evidence.reported),
        ("baseline", made.baseline, declared.baseline),
        ("margin", within, declared.margin),
    ):
        if asked != sealed:
            exploratory.append(f"{word} {asked} was requested, but {sealed} was declared")
    other = {} if evidence.imported else currencies.at_equal_seconds(evidence, made, level)
    if mark := evidence.resolved.imported:
        told += mark.notes
        proofs = [proof.of_imported(mark) for _ in made.pairs]
    else:
        proofs = proof.of_pairs(evidence.trials, [(p.a, p.b) for p in made.pairs], evidence.definition["budget"])
    gone = noticed.diverged(evidence.records)
    currency, imported = currencies.spoken(evidence), evidence.imported
    pairs = [
        replace(
            p,
            currency=currency,
            imported=imported,
            diverged=[arm for arm in (p.a, p.b) if arm in gone],
            at_equal_seconds=other.get((p.a, p.b)),
            proof=shown,
        )
        for p, shown in zip(made.pairs, proofs, strict=True)
    ]
    looks = None
    if words := extensions.said(folder, declared.alpha, declared.looks):
        looks = LookTaken(**asdict(extensions.looks(folder)), level=level, alpha_at_most=declared.alpha)
        told.append(words)
    if (name, made.baseline, within) == (evidence.reported, declared.baseline, declared.margin):
        pairs = [_kept(p, extensions.settled(folder)) for p in pairs]
    return replace(
        made,
        pairs=pairs,
        notes=told,
        budget=currencies.amount(evidence),
        arms=currencies.costs(evidence),
        imported=imported,
        looks=looks,
        seal=seal.sealed_hash(folder),
        exploratory=exploratory,
    )


def settled(evidence: Evidence) -> list[Settled]:
    """The comparisons settled so far, to be kept if the sweep is extended; empty where nothing is compared."""
    try:
        pairs = answer(evidence).pairs
    except Refused:
        return []
    kept = [one.name for one in fields(Settled) if one.name != "look"]
    return [Settled(**{name: getattr(p, name) for name in kept}) for p in pairs if p.verdict != "inconclusive"]


def _kept(pair: Pair, earlier: Sequence[Settled]) -> Pair:
    """A comparison that an earlier look settled stays settled: its error was already paid for.

    Unless the added data says the opposite.
    """
    same = (pair.a, pair.b, pair.unit)  # what one search has settled is not a verdict on methods
    found = [one for one in earlier if (one.a, one.b, one.unit) == same]
    if not found or pair.verdict != "inconclusive":
        return pair
    one = found[-1]
    if one.verdict != "equivalent" and one.difference * pair.difference <= 0:
        return pair
    return replace(pair, verdict=one.verdict, alone=None, settled_by=one)


def _compared(evidence: Evidence, question: Mapping[str, Any], level: float) -> Verdict:
    if not evidence.is_paired:
        return unpaired.compare(evidence.trials, **question)
    return comparison.compare(
        evidence.trials,
        race=raced.read(evidence.folder),
        choice=task_choice.of([evidence]),
        twin=(evidence.twin, evidence.analysis.baseline) if evidence.twin and evidence.analysis.baseline else None,
        level=level,
        **question,
    )


def _every_study_obeys(evidence: Evidence) -> None:
    """Raises Refused where some studies of an arm found nothing that satisfies the outcome constraints.

    Leaving them out would count only the searches in which the arm was lucky.
    """
    for arm, row in feasible.summary(evidence.folder, evidence.records).items():
        if 0 < len(row.studies_without) < evidence.studies:
            without = row.studies_without
            named = f"{'study' if len(without) == 1 else 'studies'} {', '.join(map(str, without))}"
            raise Refused(
                f"{named} of arm {arm} found no configuration that satisfies the outcome constraints; comparing only "
                "the other studies would favor it. Loosen the constraints or search longer, under another name"
            )


def _unplanned(evidence: Evidence) -> list[str]:
    """For a sweep that was interrupted or whose budget ended before its last study."""
    if evidence.imported:
        return []
    done = evidence.trials[evidence.trials["stage"] == Stage.CONFIRM]["study"].nunique()
    return [f"{done} of {evidence.studies} planned studies are done."] if done < evidence.studies else []


def check(evidence: Evidence) -> None:
    """Raises Refused when a control failed, or when sealed or recorded data was changed."""
    bad = controls.failed(evidence.folder)
    if bad:
        raise Refused("; ".join(bad))
    wrong = seal.verify(evidence.folder).problems
    if wrong:
        see = evidence.folder.command("verify", evidence.sweep_id)
        more = f" and {len(wrong) - 3} more, see: {see}" if len(wrong) > 3 else ""
        raise Refused(f"the sweep was changed after the fact: {'; '.join(wrong[:3])}{more}")


def oriented(pair: Pair, goal: Goal) -> Pair:
    """The same comparison with the leading arm named first."""
    if goal.sign * pair.difference >= 0:
        return pair
    below, above = pair.outperforms_interval
    seconds = pair.at_equal_seconds
    return replace(
        pair,
        at_equal_seconds=seconds and replace(seconds, **_turned(seconds)),
        a=pair.b,
        b=pair.a,
        outperforms=1 - pair.outperforms,
        outperforms_interval=(1 - above, 1 - below),
        **_turned(pair),
    )


def _turned(one: Pair | AtEqualSeconds) -> dict[str, Any]:
    (low, high), other = one.interval, {"better": "worse", "worse": "better"}
    verdict = other.get(one.verdict, one.verdict)
    return {"difference": -one.difference, "interval": (-high, -low), "verdict": verdict}


def shown(verdict: Verdict) -> list[Pair]:
    """The comparisons as shown to people: the leading arm first, unless all are against a baseline."""
    if verdict.baseline is not None:
        return list(verdict.pairs)
    return [oriented(p, verdict.goal) for p in verdict.pairs]
