"""Figures over several tasks: performance profiles and critical-difference diagram, and the table of times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context

from orchestrator.compare import profiles
from orchestrator.compare.figures import paper
from orchestrator.compare.figures.register import png
from orchestrator.compare.figures.style import SETTINGS, colors, panels
from orchestrator.compare.report import tables
from orchestrator.storage import whole


def rows(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per arm, sorted by score, best first."""
    found = []
    for arm, row in sorted(document["arms"].items(), key=lambda item: -item[1]["score"]):
        line = {"arm": arm, "score": f"{row['score']:.3f}", "solved": f"{row['solved']} of {len(document['sweeps'])}"}
        line["speedup"] = "-" if row["speedup"] is None else f"{row['speedup']:.2f}"
        for sweep, time in row["time_to_target"].items():
            line[sweep] = "∞" if time is None else f"{time:,.0f}"
        found.append(line)
    return found


def write(document: Mapping[str, Any], to: Path) -> list[Path]:
    """profile, and ranks when there are enough tasks, each as PNG, SVG and PDF; profile.csv, profile.tex."""
    drawn = {"profile": profile_figure(document)}
    if document["ranks"]["drawn"]:
        drawn["ranks"] = ranks_figure(document)
    contents: dict[Path, str | bytes] = {to / f"{name}.png": png(figure) for name, figure in drawn.items()}
    table = rows(document)
    contents[to / "profile.csv"] = tables.as_csv(table, document["exploratory"])
    caption = "Gradient evaluations to the target"
    contents[to / "profile.tex"] = tables.as_latex(table, caption, document["exploratory"])
    for name, figure in drawn.items():
        contents |= paper.drawn(figure, to / name)
    return whole.write(contents)


def profile_figure(document: Mapping[str, Any]) -> Any:
    """Share of tasks solved within tau times the cost of the fastest arm."""
    with rc_context(SETTINGS):
        figure, axes = panels(1, 1, height=3.4, width=7.0)
        ax, color = axes[0, 0], colors(sorted(document["arms"]))
        for i, (arm, (tau, rho)) in enumerate(sorted(profiles.plotted(document).items())):
            score = document["arms"][arm]["score"]
            ax.step(
                tau,
                rho,
                where="post",
                color=color[arm],
                ls=("-", "--", "-.", ":")[i % 4],
                label=f"{arm}  ({score:.2f})",
            )
        ax.set_xlabel("tau: cost to target / cost of the fastest arm (gradient evaluations)")
        ax.set_ylabel("share of tasks solved")
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlim(1, profiles.R_MAX)
        ax.legend(title="arm (score)", loc="lower right")
    return figure


def ranks_figure(document: Mapping[str, Any]) -> Any:
    """Critical-difference diagram."""
    found = dict(document["ranks"])
    with rc_context({**SETTINGS, "axes.grid": False}):
        figure, axes = panels(1, 1, height=1.2 + 0.25 * len(found["mean_ranks"]), width=7.0)
        ax = axes[0, 0]
        diagram(found, ax)
        ax.grid(visible=False)
        ax.set_title(
            f"Mean rank over {len(document['sweeps'])} tasks (1 is best; Friedman p {found['friedman_p']:.2g})"
        )
        figure.supxlabel("black bars join arms that do not differ significantly (Nemenyi, level 0.05)", fontsize=9)
    return figure


def diagram(found: dict[str, Any], ax: Any) -> None:
    """Draw the critical-difference diagram on `ax`: arms joined by a bar do not differ significantly."""
    import scikit_posthocs

    p = pd.DataFrame(found["nemenyi_p"])
    p = p.mask(np.eye(len(p), dtype=bool), 1.0)
    scikit_posthocs.critical_difference_diagram(
        found["mean_ranks"], p, ax=ax, color_palette=colors(sorted(found["mean_ranks"])),
        label_fmt_left="{label} ({rank:.2f}) ", label_fmt_right=" ({rank:.2f}) {label}",
    )  # fmt: skip
