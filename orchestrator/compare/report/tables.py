"""The tables of a sweep as rows of text, and the same rows as CSV and LaTeX (booktabs)."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.compare.answer import shown
from orchestrator.compare.evidence import Evidence, numeric, words
from orchestrator.compare.tuning import Kills, Rung, summary
from orchestrator.definition.states import Stage, State
from orchestrator.protocol import flops
from orchestrator.statistics.intervals import cut_words, interval_text, summarize
from orchestrator.statistics.sentences import alone_words, more_words, settling_words, verdict_words
from orchestrator.statistics.verdict import Pair, Verdict
from orchestrator.trial import noticed

Row = Mapping[str, str]
TWIN = "twin: shows what no difference looks like"
TUNABILITY = ("early", "uniform", "peak")
STAMP = "exploratory: {}"
LATEX = str.maketrans(
    {c: f"\\{c}" for c in "_%&#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "−": "$-$", "∞": r"$\infty$", "·": r"$\cdot$", "×": r"$\times$", "<": "$<$", ">": "$>$"}
    | {"≤": r"$\le$", "≥": r"$\ge$", "→": r"$\to$", "…": r"\dots{}"}
)


def arms(evidence: Evidence) -> list[dict[str, str]]:
    """One row per arm, best mean first: reported and tuned metric, n, cost, choice."""
    rows = []
    tuned = summary(evidence)
    further = evidence.declares.table
    metrics = list(dict.fromkeys((evidence.reported, evidence.tuned, *further)))
    values = {metric: evidence.confirmed(metric) for metric in metrics}
    bounds = {metric: evidence.bounds(metric) for metric in metrics}
    confirm = evidence.trials[evidence.trials["stage"] == Stage.CONFIRM]
    counted, gone = flops.read(evidence.folder), noticed.diverged(evidence.records)
    for arm in evidence.ranked():
        row = {"arm": arm}
        for metric in metrics:
            found = values[metric].get(arm, [])
            short = metric in further and metric not in (evidence.reported, evidence.tuned)
            row[metric] = f"{sum(found) / len(found):.4g}" if short and found else _mean(found, bounds[metric])
            if arm in gone:
                row[metric] = "all diverged"
        each = confirm[confirm["arm"] == arm]
        row["n" if evidence.studies == 1 else "studies"] = str(len(values[metrics[0]].get(arm, [])))
        spent = f"{evidence.definition['budget']['unit']} / trial" if evidence.imported else "grad evals / trial"
        row[spent] = f"{each['grad_evals'].mean():,.0f}" if each["grad_evals"].notna().any() else "-"
        if evidence.imported and not evidence.definition["budget"]["unit"]:
            del row[spent]
        row["s / trial"] = f"{each['seconds'].mean():.3g}" if each["seconds"].any() else "-"
        row["FLOPs / trial"] = f"{counted[arm]:.3g}" if arm in counted else "-"
        row["spent in all"] = f"{tuned[arm].grad_evals:,.0f}"
        row["chosen"] = chosen_words(evidence, arm) or "nothing trained to the end"
        rows.append(row)
    return rows


def cut(evidence: Evidence) -> str:
    """Which intervals of the table of arms were clipped at a bound of their metric; empty if none."""
    said = []
    for metric in dict.fromkeys((evidence.reported, evidence.tuned)):
        bounds = evidence.bounds(metric)
        sums = [summarize(found, bounds=bounds) for found in evidence.confirmed(metric).values()]
        said.append(cut_words(metric, bounds, [(one.lo, one.hi) for one in sums]))
    return f"Intervals are {' and '.join(filter(None, said))}." if any(said) else ""


def chosen_words(evidence: Evidence, arm: str) -> str:
    """The chosen configuration; over several studies the median and range of each number and the count of each
    value.
    """
    found = list(evidence.settings(arm).values())
    if evidence.studies == 1:
        return ", ".join(words(found[0])) if found else ""
    parts = list[str]()
    for name in dict.fromkeys(name for one in found for name in one):
        values = [one[name] for one in found if name in one]
        if len(set(map(str, values))) == 1:
            parts += words({name: values[0]})
        elif numeric(values) and evidence.parameters[arm][name].kind != "categorical":
            low, middle, high = min(values), float(np.median(values)), max(values)
            parts.append(f"{name} {middle:.3g} ({low:.3g} to {high:.3g})")
        else:
            counts = Counter(map(str, values)).most_common()
            parts.append(f"{name} {', '.join(f'{value} ({n})' for value, n in counts)}")
    return "; ".join(parts)


def studies(evidence: Evidence) -> list[dict[str, str]]:
    """One row per study of each arm: what it chose and the result; empty if there is only one study."""
    if evidence.studies == 1:
        return []
    units = evidence.units(evidence.reported)
    rows = []
    for arm in evidence.ranked():
        settings, frame = evidence.settings(arm), evidence.configurations[arm]
        for study in range(1, evidence.studies + 1):
            values = units.get(arm, {}).get(study, [])
            tuned = (evidence.sign * frame[frame["study"] == study]["value"]).max() if len(frame) else math.nan
            rows.append(
                {
                    "arm": arm,
                    "study": str(study),
                    "best in search": _number(None if math.isnan(tuned) else evidence.sign * tuned),
                    "chosen": ", ".join(words(settings[study])) if study in settings else "nothing trained to the end",
                    "confirm seeds": str(len(values)),
                    evidence.reported: _of_study(evidence, arm, study, values),
                    "state": _state(evidence, arm, study),
                }
            )
    return rows


def _of_study(evidence: Evidence, arm: str, study: int, values: Sequence[float]) -> str:
    """The result of a study, unless all its confirm trials diverged."""
    of = evidence.trials[(evidence.trials["arm"] == arm) & (evidence.trials["study"] == study)]
    confirm = of[of["stage"] == Stage.CONFIRM]["state"]
    if values and (confirm == State.DIVERGED).all():
        return "diverged"
    return f"{sum(values) / len(values):.4g}" if values else "no result"


def _state(evidence: Evidence, arm: str, study: int) -> str:
    """How a study went: as planned, or what happened to its confirm trials."""
    of = evidence.trials[(evidence.trials["arm"] == arm) & (evidence.trials["study"] == study)]
    confirm = list(of[of["stage"] == Stage.CONFIRM]["state"])
    if not len(of):
        return "not begun"
    if not confirm:
        return "failed: every trial" if (of["state"] == State.FAILED).all() else "no confirm trials"
    bad = Counter(state for state in confirm if state != State.COMPLETE)
    return ", ".join(f"{n} of {len(confirm)} {state.lower()}" for state, n in bad.items()) or "complete"


def pairs(document: Verdict) -> list[dict[str, str]]:
    """One row per comparison, and one for the twin, which is not a comparison."""
    twin = document.twin
    rows = [_pair(document, p) for p in shown(document)]
    if twin:
        rows.append({**_pair(document, twin), "p Holm": "-", "A is": TWIN})
    return rows


def _pair(document: Verdict, p: Pair) -> dict[str, str]:
    (low, high), (below, above) = p.outperforms_interval, p.interval
    more = "; ".join(filter(None, [alone_words(p), more_words(p)]))
    lost = [side for side, arm in (("A", p.a), ("B", p.b)) if arm in p.diverged]
    return {
        "A": p.a,
        "B": p.b,
        "studies" if document.unit == "study" else "n": ", ".join(map(str, p.counts or [p.n])),
        f"A − B [{100 * p.confidence:g} %]": f"{' and '.join(lost)} diverged"
        if lost
        else interval_text(p.difference, below, above, sign=True),
        "p permutation" if p.counts else "p sign-flip": f"{p.p:.2g}",
        "p Holm": f"{p.p_holm:.2g}",
        "p rank-sum" if p.counts else "p Wilcoxon": f"{p.wilcoxon_p:.2g}",
        "P(A ahead)": f"{p.outperforms:.2f} [{low:.2f}, {high:.2f}]",
        "detectable": "-" if lost or p.detectable is None else f"{p.detectable:.2g}",
        "A is": verdict_words(p) + (f" ({more})" if more else ""),
    }


def noise(document: Verdict) -> list[dict[str, str]]:
    """Where the noise of each comparison comes from and what settles it; empty where the studies cannot tell."""
    twin = [document.twin] if document.twin else []
    rows = []
    for p in [*shown(document), *twin]:
        if (parts := p.components) is None:
            continue
        search = parts.share_of_search
        rows.append(
            {
                "A": p.a,
                "B": p.b,
                "studies": str(p.n),
                "confirm seeds": f"{parts.confirm:.3g}",
                "sd of searches": f"{math.sqrt(parts.between):.2g}",
                "sd of training seeds": f"{math.sqrt(parts.within):.2g}",
                "share of search": f"{search:.0%}",
                "share of training seeds": f"{1 - search:.0%}",
                "what settles it cheapest": TWIN if p in twin else settling_words(p),
            }
        )
    return rows


def caption(document: Verdict) -> str:
    """What is compared, and what was paired."""
    paired = "paired" if document.paired else "not paired,"
    of = f"{document.metric}, {document.goal}, {paired} over"
    return f"{of} {document.studies} studies" if document.unit == "study" else f"{of} the confirm seeds"


def tuning(evidence: Evidence) -> list[dict[str, str]]:
    """One row per arm: what its search shows."""
    rows, several = [], evidence.studies > 1
    found = summary(evidence)
    for arm, s in sorted(found.items(), key=lambda item: item[0] == evidence.twin):
        t = s.tunability or {}
        rows.append(
            {
                "arm": arm,
                "configurations": f"{s.configurations}" + (f" in {evidence.studies} studies" if several else ""),
                "best on the seeds that chose" if evidence.imported else "best in search": _number(s.best_tune),
                "optimism gap": "-" if s.optimism is None else f"{s.optimism:+.3g}",
                "tunability early / uniform / peak": " / ".join(_number(t[k]) for k in TUNABILITY) if t else "-",
                "usable width (decades)": ", ".join(f"{k} {v:.2f}" for k, v in s.widths.items()) or "-",
                "at an edge": ", ".join(f"{e.parameter} ({e})" for e in s.edges) or "none",
                "diverged": f"{s.diverged} of {s.trials}",
                "failed": str(s.failed),
                "pruned": str(s.pruned),
            }
        )
    return rows


def rungs(found: Iterable[Rung]) -> list[dict[str, str]]:
    """The pruning audit."""
    return [
        {
            "arm": r.arm,
            "at share of budget": f"{r.share:.0%}",
            "trials": f"{r.trials:.3g}" + (f" in each of {r.studies} studies" if r.studies > 1 else ""),
            "Kendall tau with the end": "-" if r.tau != r.tau else f"{r.tau:+.2f}",
            "final winner stood": f"{r.winner_stood:.3g} of {r.trials:.3g}",
            "survives eta 3": _survives(r),
        }
        for r in found
    ]


def _survives(rung: Rung) -> str:
    if rung.survived == rung.studies:
        return "yes"
    if rung.studies > 1:
        died = rung.studies - rung.survived
        return f"no: in {died} of {rung.studies} studies the winner would have been stopped"
    return "no: the winner would have been stopped"


def kills(found: Iterable[Kills]) -> list[dict[str, str]]:
    """False kills among the stopped trials that were finished for the audit."""
    return [
        {
            "arm": k.arm,
            "pruned": str(k.pruned),
            "finished for the audit": str(k.audited),
            "would have won": str(k.false),
            "false-kill rate [95 %]": f"{k.false / k.audited:.2f} [{k.low:.2f}, {k.high:.2f}]"
            if k.audited
            else "unknown: none was finished",
        }
        for k in found
    ]


def as_csv(rows: Sequence[Mapping[str, Any]], stamps: Sequence[str] = ()) -> str:
    """Comma-separated values, with stamps as comment lines at the top."""
    out = io.StringIO()
    for stamp in stamps:
        out.write(f"# {STAMP.format(stamp)}\n")
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue()


def as_latex(rows: Sequence[Row], caption: str, stamps: Sequence[str] = ()) -> str:
    """A booktabs table; the document needs the package booktabs."""
    if not rows:
        return ""
    note = "".join(f" \\emph{{{latex(STAMP.format(s))}.}}" for s in stamps)
    styled = pd.DataFrame(rows).style.hide(axis="index").format(latex).format_index(latex, axis="columns")
    text: str = styled.to_latex(
        column_format="l" * len(rows[0]), hrules=True, position_float="centering", caption=latex(caption) + note
    )
    return text


def latex(text: object) -> str:
    """Text for LaTeX: escapes special characters, replaces our symbols, and keeps a minus with its number."""
    return re.sub(r"(?<!\w)-(?=[\d.])", "$-$", str(text).translate(LATEX))


def _mean(found: Sequence[float], bounds: tuple[float, float]) -> str:
    if not found:
        return "no result"
    s = summarize(found, bounds=bounds)
    return interval_text(s.mean, s.lo, s.hi)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
