"""What the trials measured of the geometry while they trained: every `geometry/...` metric, confirm seeds with
bands.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from orchestrator.compare.evidence import Evidence
from orchestrator.compare.figures import Drawn, figure
from orchestrator.compare.figures_answer import banded
from orchestrator.compare.style import colours, panels

PREFIX, ACROSS = "geometry/", 3


@figure
def geometry(evidence: Evidence) -> Iterator[Drawn]:
    """A panel for each diagnostic."""
    curves = evidence.curves[evidence.curves["stage"] == "confirm"]
    names = sorted(n for n in curves["name"].unique() if n.startswith(PREFIX))
    if not names:
        return
    columns = min(ACROSS, max(2, len(names)))
    figure_, axes = panels(-(-len(names) // columns), columns, height=2.5)
    for ax, name in zip(axes.flat, names, strict=False):
        for arm in evidence.arms:
            found = banded(curves[(curves["arm"] == arm) & (curves["name"] == name)], "step")
            if found is None:
                continue
            x, mean, low, high = found
            ax.plot(x, mean, color=colours(evidence.arms)[arm], label=arm)
            ax.fill_between(x, low, high, color=colours(evidence.arms)[arm], alpha=0.16, lw=0)
        values = curves[curves["name"] == name]["value"].to_numpy()
        if np.nanmin(values) > 0 and np.nanmax(values) / np.nanmin(values) > 100:
            ax.set_yscale("log")
        ax.set_title(name.removeprefix(PREFIX))
        ax.set_xlabel("gradient evaluations")
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    figure_.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=min(6, len(evidence.arms))
    )
    yield Drawn(
        name="geometry",
        section="geometry",
        caption="Diagnostics of the geometry while the confirm trials trained: mean over seeds, 95 % interval.",
        figure=figure_,
    )
