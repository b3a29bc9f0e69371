"""The numbers behind a report's tables, each in its own column, for programs to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.compare.answer import shown
from orchestrator.compare.evidence import Evidence
from orchestrator.statistics.intervals import summarize
from orchestrator.statistics.verdict import Pair, Verdict
from orchestrator.trial import noticed

Row = Mapping[str, Any]


def arms(evidence: Evidence) -> list[dict[str, Any]]:
    """One row per arm and metric: mean over its units with the 95% t interval and the sample standard deviation."""
    metrics = dict.fromkeys((evidence.reported, evidence.tuned, *evidence.declares.table))
    rows, gone = list[dict[str, Any]](), noticed.diverged(evidence.records)
    for metric in metrics:
        values, bounds = evidence.confirmed(metric), evidence.bounds(metric)
        for arm in evidence.ranked():
            if found := values.get(arm):
                s = summarize(found, bounds=bounds)
                row = {"arm": arm, "metric": metric, "unit": evidence.unit, "n": s.n, "estimate": s.mean}
                row |= {"low": s.lo, "high": s.hi, "sd": s.sd}
                row |= dict.fromkeys(("estimate", "low", "high", "sd")) if arm in gone else {}
                rows.append({**row, "confidence": 0.95})
    return rows


def pairs(document: Verdict) -> list[dict[str, Any]]:
    """One row per comparison, the twin's last: the difference A - B, its interval, tests and verdict."""
    twin = [document.twin] if document.twin else []
    return [_pair(document, p, is_twin=p in twin) for p in [*shown(document), *twin]]


def _pair(document: Verdict, p: Pair, *, is_twin: bool) -> dict[str, Any]:
    low, high = (None, None) if p.diverged else p.interval
    below, above = p.outperforms_interval
    return {
        "a": p.a,
        "b": p.b,
        "metric": document.metric,
        "unit": document.unit,
        "n": p.n,
        "estimate": None if p.diverged else p.difference,
        "low": low,
        "high": high,
        "confidence": p.confidence,
        "p": p.p,
        "p_holm": None if is_twin else p.p_holm,
        "p_equivalent": p.p_equivalent,
        "p_rank": p.wilcoxon_p,
        "outperforms": p.outperforms,
        "outperforms_low": below,
        "outperforms_high": above,
        "detectable": p.detectable,
        "verdict": "twin" if is_twin else p.verdict,
        "alone": p.alone,
    }


def stamped(rows: Sequence[Row], stamps: Sequence[str]) -> list[dict[str, Any]]:
    """The rows with the reasons for being exploratory in a column: a comment line would break CSV readers."""
    return [{**row, "exploratory": "; ".join(stamps)} for row in rows]


def beside(path: Path) -> Path:
    """`pairs.csv` -> `pairs-numbers.csv`."""
    return path.with_name(f"{path.stem}-numbers.csv")
