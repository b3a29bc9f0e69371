"""Results of a sweep as objects that display in a notebook: a comparison, a report."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from geosweep import _html
from orchestrator.compare import answer
from orchestrator.compare.report import tables
from orchestrator.statistics.sentences import headline
from orchestrator.statistics.verdict import Verdict


@dataclass(frozen=True)
class Comparison:
    """The paired comparison of a sweep's arms."""

    verdict: Verdict

    @property
    def document(self) -> dict[str, Any]:
        """As printed by `geosweep compare --json`."""
        return self.verdict.document()

    @property
    def pairs(self) -> pd.DataFrame:
        """One row per comparison: a, b, n, difference with its interval (low, high), p, p_holm, verdict."""
        rows = []
        for pair in answer.shown(self.verdict):
            low, high = pair.interval
            head = {name: getattr(pair, name) for name in ("a", "b", "n", "difference")}
            rest = {name: getattr(pair, name) for name in ("p", "p_holm", "verdict")}
            rows.append({**head, "low": low, "high": high, **rest})
        return pd.DataFrame(rows)

    @property
    def headline(self) -> str:
        """The answer in one sentence."""
        return headline(self.verdict)

    @property
    def sentences(self) -> list[str]:
        """Each comparison in words, then notes needed to interpret them."""
        metric = self.verdict.metric
        spoken = [answer.sentence(pair, metric) for pair in answer.shown(self.verdict)]
        few = answer.too_few(self.verdict)
        return [*spoken, *answer.notes(self.verdict), *([few] if few else [])]

    @property
    def exploratory(self) -> list[str]:
        """Why it is exploratory; empty for the comparison that was declared before the first trial."""
        return list(self.verdict.exploratory)

    def __str__(self) -> str:
        return "\n".join([*self.sentences, *(f"exploratory: {stamp}" for stamp in self.exploratory)])

    def _repr_html_(self) -> str:
        title = f"{self.verdict.sweep_id}: {tables.caption(self.verdict)}"
        return _html.titled(title, _html.table(tables.pairs(self.verdict)), self.sentences, self.exploratory)


@dataclass(frozen=True, kw_only=True)
class ReportFile:
    """A report on disk: one HTML file that works offline, with figures and tables next to it."""

    path: Path
    """report.html"""
    trouble: str = ""
    """What could not be logged to MLflow, and why."""

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        page = html.escape(self.path.read_text(encoding="utf-8"))
        frame = f'<iframe srcdoc="{page}" style="width: 100%; height: 40em; border: 1px solid #ccc"></iframe>'
        return _html.titled(str(self.path), frame, [self.trouble] if self.trouble else [])
