"""The axis of a hyperparameter: its own scale and range, with the edges marked where an optimum may lie outside."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.compare import tuning
from orchestrator.compare.evidence import numeric
from orchestrator.definition.space import Parameter


def places(p: Parameter, values: pd.Series) -> tuple[Any, list[str] | None]:
    """Positions on the axis, and tick labels where levels are evenly spaced."""
    if p.kind == "categorical":
        levels = sorted(p.values) if numeric(p.values) else list(p.values)
        texts = [f"{v:g}" if numeric([v]) else str(v) for v in levels]
        index = {repr(v): i for i, v in enumerate(levels)} | {
            repr(float(v)): i for i, v in enumerate(levels) if numeric([v])
        }
        return np.array([index.get(repr(v), 0) for v in values.tolist()]), texts
    found = values.to_numpy(dtype=float)
    return (1 - found if p.one_minus else found), None


def draw_axis(ax: Any, p: Parameter, ticks: list[str] | None) -> None:
    """Range, scale and ticks of the horizontal axis; the outer 5% are hatched."""
    if ticks is not None:
        long = max(map(len, ticks)) * len(ticks) > 22
        ax.set_xticks(range(len(ticks)), ticks, rotation=40 if long else 0, ha="right" if long else "center")
        ax.set_xlim(-0.5, len(ticks) - 0.5)
        return
    low, high = (1 - p.high, 1 - p.low) if p.one_minus else (p.low, p.high)
    if p.one_minus:
        ax.set_xlabel(f"1 − {p.name}")
    if p.log or p.one_minus:
        ax.set_xscale("log")
        ax.set_xticks(marks := log_marks(low, high), [f"{m:g}" for m in marks])
        ax.minorticks_off()
        cut = [low * (high / low) ** s for s in (0, tuning.EDGE, 1 - tuning.EDGE, 1)]
    else:
        cut = [low + s * (high - low) for s in (0, tuning.EDGE, 1 - tuning.EDGE, 1)]
    for a, b in ((0, 1), (2, 3)):
        ax.axvspan(cut[a], cut[b], facecolor="none", edgecolor="#bbbbbb", hatch="////", lw=0, zorder=0)
    ax.set_xlim(low, high)


def log_marks(low: float, high: float, most: int = 4) -> list[float]:
    """Round numbers inside [low, high] for a logarithmic axis: 1, 2, 5 in each decade, or whole decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [d * 10.0**e for e in decades for d in digits if low * 0.999 <= d * 10.0**e <= high * 1.001]
        if len(found) <= most:
            return found
    return found[:: -(-len(found) // most)]
