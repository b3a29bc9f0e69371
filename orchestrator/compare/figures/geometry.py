"""Geometry diagnostics measured during training: every `geometry/...` metric of the confirm seeds, with bands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.compare.evidence import Evidence
from orchestrator.compare.figures.answer import banded
from orchestrator.compare.figures.register import Drawn, figure
from orchestrator.compare.figures.style import colors, panels
from orchestrator.definition.states import Stage
from orchestrator.statistics.intervals import summarize

PREFIX, ACROSS = "geometry/", 3


@figure
def geometry(evidence: Evidence) -> Iterator[Drawn]:
    """One panel per diagnostic."""
    curves = evidence.curves[evidence.curves["stage"] == Stage.CONFIRM]
    names = sorted(n for n in curves["name"].unique() if n.startswith(PREFIX))
    if not names:
        return
    columns = min(ACROSS, max(2, len(names)))
    figure_, axes = panels(-(-len(names) // columns), columns, height=max(2.5, 0.9 + 0.19 * len(evidence.arms)))
    for ax, name in zip(axes.flat, names, strict=False):
        if curves[curves["name"] == name].groupby("trial_id").size().max() < 2:
            _once(ax, evidence, curves[curves["name"] == name])
            continue
        for arm in evidence.arms:
            found = banded(curves[(curves["arm"] == arm) & (curves["name"] == name)])
            if found is None:
                continue
            x, _, mean, low, high = found
            ax.plot(x, mean, color=colors(evidence.arms, evidence.twin)[arm], label=arm)
            ax.fill_between(x, low, high, color=colors(evidence.arms, evidence.twin)[arm], alpha=0.16, lw=0)
        values = curves[curves["name"] == name]["value"].to_numpy()
        if np.nanmin(values) > 0 and np.nanmax(values) / np.nanmin(values) > 100:
            ax.set_yscale("log")
        ax.set_title(name.removeprefix(PREFIX))
        ax.set_xlabel("gradient evaluations")
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    shown = next((found for ax in axes.flat if (found := ax.get_legend_handles_labels())[0]), None)
    if shown:
        figure_.legend(*shown, loc="outside upper center", ncols=min(6, len(evidence.arms)))
    yield Drawn(
        name="geometry",
        section="geometry",
        caption="Geometry diagnostics during the confirm trials: mean over "
        f"{'studies' if evidence.studies > 1 else 'seeds'}, 95% interval. "
        "Diagnostics measured only once, at the end, are shown per arm.",
        figure=figure_,
    )


def _once(ax: Any, evidence: Evidence, points: pd.DataFrame) -> None:
    """Mean and interval per arm for a diagnostic with one value per trial."""
    for i, arm in enumerate(evidence.arms):
        values = points[points["arm"] == arm].groupby(evidence.unit)["value"].mean().to_list()
        if values:
            s, color = summarize(values), colors(evidence.arms, evidence.twin)[arm]
            if s.lo is not None and s.hi is not None:
                ax.plot([s.lo, s.hi], [-i, -i], color=color, lw=2.4, solid_capstyle="butt")
            ax.plot(s.mean, -i, "o", color=color, ms=6, mec="white")
    ax.set_yticks([-i for i in range(len(evidence.arms))], evidence.arms)
    ax.set_title(points["name"].iloc[0].removeprefix(PREFIX))
    ax.set_xlabel("at the end of training")
