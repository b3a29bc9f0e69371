"""Verdicts in plain words.

Studies support statements about methods: 'sam, tuned with 6 trials, is better than sgd, tuned with 6 trials'. One
search per arm supports only statements about the two configurations that it found, whatever the number of confirm
seeds: what two identical arms find differs by the luck of the search, and more seeds only measure that accident more
precisely (Bouthillier et al. 2021, 2103.03098).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.statistics.intervals import interval_text
from orchestrator.statistics.significance import floor_of_seeds
from orchestrator.statistics.verdict import AtEqualSeconds, Pair, Verdict

MANY, STUDIES, MOST_HEADLINES = 200, 8, 3
"""Beyond MANY more units, only 'more than MANY' is stated. STUDIES is the number recommended for a sweep of one
study.
"""


def sentence(pair: Pair, metric: str) -> str:
    """One comparison."""
    at = _at(pair)
    ahead = f"ahead {_among(pair)} {pair.outperforms:.0%} of {_count(pair)}"
    amount, verdict = f"{_amount(pair, metric)}{at}, p {pair.p_holm:.2g} (Holm)", pair.verdict
    if verdict == "equivalent":
        amount = f"{_amount(pair, metric)}{at}, p {pair.p_equivalent:.2g} (equivalence, Holm), {_count(pair)}"
    return f"{_said(pair, amount, ahead)}{_when(pair)}{_turned(pair)}{_origin(pair)}.{_proof(pair)}"


def _at(pair: Pair) -> str:
    """The budget of both; of scripts whose own reports end elsewhere it is only what was declared."""
    if not pair.currency:
        return ""
    ends = pair.proof.compute.reports if pair.proof else ""
    return f", declared {pair.currency} (their own reports end at {ends})" if ends else f", at {pair.currency}"


def _amount(pair: Pair, metric: str) -> str:
    """The difference and its interval, or why there is none."""
    if lost := pair.diverged:
        return f"every confirm trial of {_and(lost)} diverged"
    return f"{difference_text(pair)} {metric}"


def difference_text(pair: Pair | AtEqualSeconds) -> str:
    """A paired difference with its sign and interval, and the confidence where it is not 95%."""
    low, high = pair.interval
    text = interval_text(pair.difference, low, high, sign=True)
    confidence = getattr(pair, "confidence", 0.95)
    return text if abs(confidence - 0.95) < 1e-9 else f"{text} ({100 * confidence:g}%)"


def _when(pair: Pair) -> str:
    """At which look it was settled, if that was an earlier one."""
    one = pair.settled_by
    if one is None:
        return ""
    p = one.p_equivalent if one.verdict == "equivalent" else one.p_holm
    return f"; settled at look {one.look}, by {one.n} {_plural(one.unit, one.n)}, p {p:.2g}"


def _proof(pair: Pair) -> str:
    """How far pairing and compute of scripts are proved; where both are, the notes say so. For imports see
    `_origin`.
    """
    found = pair.proof.parts() if pair.proof else {}
    if pair.imported or all(one.level == "proved" for one in found.values()):
        return ""
    words = [f"{what} {one.level} ({one.why})" for what, one in found.items()]
    return f" {', '.join(words).capitalize()}."


def proof_line(document: Verdict) -> list[str]:
    """States that pairing and compute of every pair are proved, if they are."""
    found = [p.proof.parts() for p in document.pairs if p.proof]
    if not found or any(one.level != "proved" for parts in found for one in parts.values()):
        return []
    ways = {what: "; ".join(dict.fromkeys(parts[what].why for parts in found)) for what in found[0]}
    return [f"Proved: {', '.join(f'{what} ({why})' for what, why in ways.items())}."]


def _said(pair: Pair, amount: str, ahead: str) -> str:
    a, b, verdict = pair.a, pair.b, pair.verdict
    if pair.unit == "study":
        first, second = _tuned(pair, a), _tuned(pair, b)
        if verdict in ("better", "worse"):
            return f"{first} is {verdict} than {second.rstrip(',')}: {amount}, {ahead}"
        if verdict == "equivalent":
            return f"{first} and {second} are equivalent within the margin: {amount}"
        return f"{first} vs. {second} is inconclusive: {amount}; {_why_open(pair)}"
    if verdict in ("better", "worse"):
        verb = "beats" if verdict == "better" else "is beaten by"
        return f"The configuration found for {a} {verb} the one found for {b}: {amount}, {ahead}"
    if verdict == "equivalent":
        return f"The configurations found for {a} and {b} are equivalent within the margin: {amount}"
    return f"The configurations found for {a} and {b}: inconclusive, {amount}; {_why_open(pair)}"


def _among(pair: Pair) -> str:
    return "in" if pair.unit == "study" or pair.counts else "on"


def _origin(pair: Pair) -> str:
    """Where imported results come from, and who vouches for their pairing."""
    return f" (imported: {pair.imported})" if pair.imported else ""


def _turned(pair: Pair) -> str:
    """What another currency would say, if it differs."""
    other = pair.at_equal_seconds
    if other is None or other.verdict == pair.verdict:
        return ""
    return f"; at equal seconds: {other.verdict} ({difference_text(other)})"


def verdict_words(pair: Pair) -> str:
    """The verdict for a table or a figure; with one search, it is about the configuration."""
    plain = pair.unit == "study" or pair.verdict == "inconclusive"
    return str(pair.verdict) if plain else f"{pair.verdict} (configuration)"


def alone_words(pair: Pair) -> str:
    """Why a pair is inconclusive although p or its interval looks settled; empty where both agree."""
    level, bound = (
        f"{1 - pair.confidence if pair.level is None else pair.level:.2g}",
        "zero" if pair.p_equivalent is None else "the margin",
    )
    words = {
        "p": f"p is below {level}, but the interval does not exclude {bound}",
        "interval": f"the interval excludes {bound}, but p after Holm is not below {level}",
        "equivalence": f"the interval lies inside the margin, but p of equivalence after Holm is not below {level}",
    }
    return words.get(pair.alone or "", "")


def twin_line(document: Verdict) -> str:
    """How much the baseline's identical copy differs from it; empty without one."""
    pair = document.twin
    if pair is None:
        return ""
    of, other = ("", "it") if pair.unit == "study" else ("The configuration found for ", "the one found for it")
    copy = f"{of}{pair.a}, an identical copy of {pair.b} tuned independently, differs from {other}"
    amount = f"{difference_text(pair)} {document.metric}, p {pair.p:.2g}"
    return f"{copy} by {amount}, over {_count(pair)}: this is what no difference looks like here."


def headline(document: Verdict | None, refused: str = "") -> str:
    """The verdict in one line."""
    if document is None:
        return f"No verdict: {refused}"
    found = _verdict(document)
    return f"{found} Imported: {document.imported}." if document.imported else found


def _verdict(document: Verdict) -> str:
    beats: dict[str, list[str]] = {}
    for p in document.pairs:
        if p.verdict in ("better", "worse"):
            winner, loser = (p.a, p.b) if p.verdict == "better" else (p.b, p.a)
            beats.setdefault(winner, []).append(loser)
    if beats:
        groups: dict[tuple[str, ...], list[str]] = {}
        for winner, losers in beats.items():
            groups.setdefault(tuple(sorted(losers)), []).append(winner)
        ordered = sorted(groups.items(), key=lambda item: -len(item[0]))[:MOST_HEADLINES]
        found = [_beats(document, sorted(winners), losers) for losers, winners in ordered]
        return " ".join([*found, *_still_open(document), *_of_one_search(document)])
    if {p.verdict for p in document.pairs} == {"equivalent"}:
        within = f"equivalent within ±{document.margin:g} {document.metric}"
        if document.unit == "study":
            return f"The arms{_each(document)}, are {within}."
        return " ".join([f"The configurations found are {within}.", *_of_one_search(document)])
    if not document.pairs:
        return "Nothing is compared: there is the baseline and its twin."
    if few := too_few(document):
        return f"Not settled. {few}"
    needed = [(_size(p), more) for p in document.pairs if (more := more_words(p))]
    more = f" The closest question needs {min(needed)[1]}." if needed else ""
    what = "arm" if document.unit == "study" else "configuration"
    return f"Not settled: no {what} is shown to be better than another.{more}"


def notes(document: Verdict) -> list[str]:
    """What to read along with the comparisons: studies that went wrong, the race, the limits of one search."""
    few = too_few(document)
    found = [note for note in document.notes if note != few]
    found += list(_diverged(document))
    more = [*race_lines(document), *filter(None, [twin_line(document)]), *proof_line(document)]
    return [*found, *more, *caveat(document)]


def _diverged(document: Verdict) -> Iterator[str]:
    lost: dict[str, list[int]] = {}
    for arm, study in document.diverged:
        lost.setdefault(arm, []).append(study)
    for arm, studies in lost.items():
        if document.unit != "study" or len(studies) == document.units:
            yield f"Every confirm trial of arm {arm} diverged."
        elif len(studies) == 1:
            yield f"Study {studies[0]} of arm {arm} diverged entirely."
        else:
            yield f"Studies {_and(list(map(str, studies)))} of arm {arm} diverged entirely."


def caveat(document: Verdict) -> list[str]:
    """The limits of a comparison that rests on one search per arm; empty if it rests on several."""
    if document.unit == "study":
        return []
    if document.imported:
        return [
            "One search each says nothing about the methods; import several independent searches of each arm, and "
            "name the column that identifies them: --study."
        ]
    studies = max(STUDIES, floor_of_seeds(len(document.pairs), document.alpha))
    costs = [p.study_trials for p in document.pairs if p.study_trials]
    price = f" `seeds: {{studies: {studies}}}` takes {(studies - 1) * max(costs)} more trials per arm." if costs else ""
    return [
        "One search each says nothing about the methods: two identical arms tuned like this differ by a settled amount "
        f"in about 3 of 10 sweeps.{price}"
    ]


def race_lines(document: Verdict) -> list[str]:
    """Which arms a race stopped and how that affects the comparison; empty without a race."""
    race = document.race
    if race is None:
        return []
    looks, counts = ", ".join(map(str, race.looks)), document.seeds_of
    units = "studies" if document.unit == "study" else "seeds"
    found = [
        f"The arms raced, with looks at {looks} {units}; p is corrected for {race.tests} sequential tests, "
        f"intervals are not. Seeds: {', '.join(f'{arm} {n}' for arm, n in counts.items())}."
    ]
    return found + [f"{arm} was stopped: {one.reason}." for arm, one in race.stopped.items()]


def too_few(document: Verdict) -> str:
    """States that no result could have been significant, if so; otherwise empty."""
    if not document.paired:
        return ""
    n, k, alpha = document.units, len(document.pairs), document.alpha
    floor = floor_of_seeds(k, alpha)
    if n >= floor or not k:
        return ""
    units = "studies" if document.unit == "study" else "seeds"
    return (
        f"{n} {units} cannot settle {k} comparison{'s' if k > 1 else ''}: corrected by Holm, p is at least "
        f"{min(1.0, k * 2.0 ** (1 - n)):.2g}. Plan {floor} {units} or more (1 + log2({k} / {alpha:g}))"
        f"{', or declare a baseline' if k > 1 and document.baseline is None else ''}."
    )


def more_words(pair: Pair) -> str:
    """What might settle an inconclusive pair: `about 4 more studies`; empty when nothing would, or need not."""
    if pair.verdict != "inconclusive":
        return ""
    if pair.unit == "seed":
        return units_words(pair.more_seeds, "seed") if pair.more_seeds else ""
    found = pair.settles
    if found is None or found.cheapest is None:
        return ""
    price = f" ({found.trials} trials per arm)" if found.trials is not None else ""
    if found.cheapest == "confirm":
        return f"{found.confirm} confirm seeds per study{price}"
    assert found.studies is not None
    return units_words(found.studies, "study") + (price if found.studies <= MANY else "")


def settling_words(pair: Pair) -> str:
    """The cheapest way to settle a pair, for a table or a figure."""
    if pair.verdict != "inconclusive":
        return "settled"
    return more_words(pair) or "no number of studies"


def units_words(more: int, unit: str) -> str:
    """`more` further units; beyond MANY the difference is too small for the number to be meaningful."""
    units = _plural(unit, more)
    return f"about {more} more {units}" if more <= MANY else f"more than {MANY} more {units}"


def _why_open(pair: Pair) -> str:
    return "; ".join(filter(None, [alone_words(pair), _what_it_takes(pair)]))


def _what_it_takes(pair: Pair) -> str:
    low, high = pair.interval
    if low == high:
        return f"the difference is the same in all {_count(pair)}, so more would add nothing"
    parts = pair.components
    noise = f"the search makes up {parts.share_of_search:.0%} of the noise; " if parts else ""
    more = more_words(pair)
    if not more:
        return f"{noise}no number of {_plural(pair.unit, 2)} would settle it"
    return f"{noise}{more} might settle it"


def _plural(unit: str, n: int) -> str:
    return unit if n == 1 else "studies" if unit == "study" else "seeds"


def _count(pair: Pair) -> str:
    if counts := pair.counts:
        return f"the pairs of {counts[0]} and {counts[1]} {_plural(pair.unit, 2)}"
    return f"{pair.n} {_plural(pair.unit, pair.n)}"


def _tuned(pair: Pair, arm: str) -> str:
    """`sam, tuned with 6 trials,`; `sam, tuned with 6 trials and its own task.width,`."""
    own = f" and its own {_and(pair.own_task)}" if pair.own_task else ""
    return f"{arm}, tuned with {_trials(pair.searched[arm])}{own}," if pair.searched else arm


def _trials(n: int) -> str:
    return f"{n} trial{'s' if n != 1 else ''}"


def _each(document: Verdict) -> str:
    """`, each tuned with 6 trials, in 8 studies`, as far as it is known and the same for all."""
    counts = {n for p in document.pairs for n in (p.searched or {}).values()}
    chosen = sorted({name for p in document.pairs for name in p.own_task})
    own = f" and its own {_and(chosen)}" if chosen else ""
    tuned = f", each tuned with {_trials(counts.pop())}{own}" if len(counts) == 1 else ""
    return f"{tuned}, in {document.units} studies"


def _beats(document: Verdict, winners: Sequence[str], losers: Sequence[str]) -> str:
    one = len(winners) == 1
    if document.unit == "study":
        return f"{_and(winners)} {'is' if one else 'are'} better than {_and(losers)}{_each(document)}."
    found = f"The configuration{'' if one else 's'} found for {_and(winners)} beat{'s' if one else ''}"
    return f"{found} the one{'' if len(losers) == 1 else 's'} found for {_and(losers)}."


def _of_one_search(document: Verdict) -> list[str]:
    return [] if document.unit == "study" else ["One search each says nothing about the methods."]


def _still_open(document: Verdict) -> list[str]:
    """Which comparisons with the declared baseline are not settled, in one sentence."""
    left = sorted(p.a for p in document.pairs if p.verdict == "inconclusive")
    return [f"Not settled against {document.baseline}: {_and(left)}."] if left and document.baseline else []


def _size(pair: Pair) -> float:
    """Sorting key to find the pair that is closest to being settled."""
    if pair.unit == "seed":
        return float(pair.more_seeds or 0)
    found = pair.settles
    assert found is not None, "more_words had something to say"
    return float((found.trials if found.trials is not None else found.studies) or 0)


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
