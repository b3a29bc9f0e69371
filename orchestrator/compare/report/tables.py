"""The tables of a sweep as rows of text, and the same rows as CSV and LaTeX (booktabs)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

import trainables
from orchestrator.compare.answer import shown
from orchestrator.compare.evidence import Evidence, bounds_of, words
from orchestrator.compare.tuning import summary
from orchestrator.definition.states import Stage
from orchestrator.protocol import flops
from orchestrator.statistics.intervals import difference_text, interval_text, summarize
from orchestrator.statistics.sentences import more_words, verdict_words

Row = Mapping[str, str]
STAMP = "exploratory: {}"
LATEX = str.maketrans(
    {c: f"\\{c}" for c in "_%&#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "−": "$-$", "∞": r"$\infty$"}
)


def arms(evidence: Evidence) -> list[dict[str, str]]:
    """One row for each arm, the best mean first: reported and tuned metric, n, cost, what was chosen."""
    rows = []
    tuned = summary(evidence)
    further = trainables.lookup(evidence.task).TABLE
    metrics = list(dict.fromkeys((evidence.reported, evidence.tuned, *further)))
    values = {metric: evidence.confirmed(metric) for metric in metrics}
    confirm = evidence.trials[evidence.trials["stage"] == Stage.CONFIRM]
    counted = flops.read(evidence.folder)
    for arm in evidence.ranked():
        row = {"arm": arm}
        for metric in metrics:
            found = values[metric].get(arm, [])
            short = metric in further and metric not in (evidence.reported, evidence.tuned)
            row[metric] = f"{sum(found) / len(found):.4g}" if short and found else _mean(found, metric)
        each = confirm[confirm["arm"] == arm]
        row["n"] = str(len(values[metrics[0]].get(arm, [])))
        row["grad evals / trial"] = f"{each['grad_evals'].mean():,.0f}" if len(each) else "-"
        row["s / trial"] = f"{each['seconds'].mean():.3g}" if len(each) else "-"
        row["FLOPs / trial"] = f"{counted[arm]:.3g}" if arm in counted else "-"
        row["spent in all"] = f"{tuned[arm]['grad_evals']:,.0f}"
        row["chosen"] = ", ".join(words(evidence.settings(arm))) or "nothing trained to the end"
        rows.append(row)
    return rows


def pairs(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row for each comparison."""
    rows = []
    for p in shown(document):
        low, high = p["outperforms_interval"]
        more = f" ({needs})" if (needs := more_words(p)) else ""
        rows.append(
            {
                "A": p["a"],
                "B": p["b"],
                "n": str(p["n"]),
                "A − B [95 %]": difference_text(p),
                "p sign-flip": f"{p['p']:.2g}",
                "p Holm": f"{p['p_holm']:.2g}",
                "p Wilcoxon": f"{p['wilcoxon_p']:.2g}",
                "P(A ahead)": f"{p['outperforms']:.2f} [{low:.2f}, {high:.2f}]",
                "detectable": "-" if p["detectable"] is None else f"{p['detectable']:.2g}",
                "A is": verdict_words(p) + more,
            }
        )
    return rows


def tuning(evidence: Evidence) -> list[dict[str, str]]:
    """One row for each arm: what its search says."""
    rows = []
    for arm, s in summary(evidence).items():
        t = s["tunability"] or {}
        rows.append(
            {
                "arm": arm,
                "configurations": str(s["configurations"]),
                "best in search": _number(s["best_tune"]),
                "optimism gap": "-" if s["optimism"] is None else f"{s['optimism']:+.3g}",
                "tunability early / uniform / peak": " / ".join(
                    _number(t.get(k)) for k in ("early", "uniform", "peak")
                ),
                "usable width (decades)": ", ".join(f"{k} {v:.2f}" for k, v in s["widths"].items()) or "-",
                "at an edge": ", ".join(f"{k} ({v})" for k, v in s["edges"].items()) or "none",
                "diverged": f"{s['diverged']} of {s['trials']}",
                "failed": str(s["failed"]),
                "pruned": str(s["pruned"]),
            }
        )
    return rows


def rungs(found: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The pruning audit."""
    return [
        {
            "arm": r["arm"],
            "at share of budget": f"{r['share']:.0%}",
            "trials": str(r["trials"]),
            "Kendall tau with the end": "-" if r["tau"] != r["tau"] else f"{r['tau']:+.2f}",
            "final winner stood": f"{r['winner_stood']} of {r['trials']}",
            "survives eta 3": "yes" if r["would_survive"] else "no: the winner would have been stopped",
        }
        for r in found
    ]


def kills(found: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """False kills among the stopped trials that were finished for the audit."""
    return [
        {
            "arm": k["arm"],
            "pruned": str(k["pruned"]),
            "finished for the audit": str(k["audited"]),
            "would have won": str(k["false"]),
            "false-kill rate [95 %]": f"{k['false'] / k['audited']:.2f} [{k['low']:.2f}, {k['high']:.2f}]"
            if k["audited"]
            else "unknown: none was finished",
        }
        for k in found
    ]


def as_csv(rows: Sequence[Row], stamps: Sequence[str] = ()) -> str:
    """Comma-separated values; stamps as comment lines in front."""
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
    note = "".join(f" \\emph{{{_latex(STAMP.format(s))}.}}" for s in stamps)
    styled = pd.DataFrame(rows).style.hide(axis="index").format(_latex).format_index(_latex, axis="columns")
    text: str = styled.to_latex(
        column_format="l" * len(rows[0]), hrules=True, position_float="centering", caption=_latex(caption) + note
    )
    return text


def _latex(text: object) -> str:
    return str(text).translate(LATEX)


def _mean(found: Sequence[float], metric: str) -> str:
    if not found:
        return "no result"
    s = summarize(found, bounds=bounds_of(metric))
    return interval_text(s.mean, s.lo, s.hi)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
