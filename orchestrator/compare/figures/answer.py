"""The answer as pictures: arms on the same seeds, their paired differences, and learning curves with bands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.compare.answer import answer, shown
from orchestrator.compare.evidence import Evidence, label_of
from orchestrator.compare.figures.register import Drawn, figure
from orchestrator.compare.figures.style import GRAY, VERDICTS, colors, markers, panels
from orchestrator.definition.states import Goal, Stage, State
from orchestrator.protocol import seal
from orchestrator.statistics.intervals import UNBOUNDED, summarize
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.sentences import verdict_words
from orchestrator.statistics.verdict import Pair, Verdict

MOST_PAIRS = 12


@figure
def verdict(evidence: Evidence) -> Iterator[Drawn]:
    """Left: every arm's confirm seeds, one gray line per seed. Right: paired differences with their intervals.

    For a sweep with one study; `studies.verdict` draws several.
    """
    values = {arm: v for arm in evidence.ranked() if (v := evidence.confirmed(evidence.reported).get(arm))}
    if not values or evidence.studies > 1:
        return
    document = answered(evidence)
    pairs = drawn_pairs(document)
    rows = max(len(pairs), 2)
    figure_, axes = panels(
        1,
        2 if pairs else 1,
        height=max(2.5, 0.9 + (0.42 if max(rows, len(values)) < 7 else 0.32) * max(rows, len(values))),
        width_ratios=[1, 1.25] if pairs else [1],
    )
    _arms(axes[0, 0], evidence, values)
    if pairs and document:
        _differences(axes[0, 1], evidence, pairs, document)
    stamp(figure_, evidence, document)
    seeds = "of the imported runs" if evidence.imported else "on the fresh confirm seeds"
    yield Drawn(
        name="verdict",
        section="answer",
        caption=f"{evidence.reported} {seeds}: mean and 95% interval of each arm"
        + ("; thin lines join the same seed." if evidence.is_paired else ".")
        + (
            f" Right: difference {'on the same seed (dots), its mean' if evidence.is_paired else 'of the means'} "
            "and 95% interval; the verdict also requires p < alpha after Holm's correction."
            if pairs
            else ""
        ),
        figure=figure_,
    )


def answered(evidence: Evidence) -> Verdict | None:
    """The comparison; None when there is no comparison."""
    try:
        return answer(evidence)
    except Refused:
        return None


def drawn_pairs(document: Verdict | None) -> list[Pair]:
    """The comparisons that a figure shows, the twin's last."""
    if document is None:
        return []
    return [*shown(document)[:MOST_PAIRS], *([document.twin] if document.twin else [])]


def pair_color(document: Verdict, pair: Pair) -> str:
    """The color of its verdict; gray for the twin, which has none."""
    return GRAY if pair is document.twin else VERDICTS[pair.verdict]


def pair_words(document: Verdict, pair: Pair) -> str:
    """`better, p 0.016`; for the twin, that it is one."""
    if pair is document.twin:
        return f"twin, p {pair.p:.2g}"
    return f"{verdict_words(pair)}, p {pair.p_holm:.2g}{_alone(document, pair)}"


def _alone(document: Verdict, pair: Pair) -> str:
    """Why a pair is inconclusive although its p or its interval looks settled: a short form of `alone_words`."""
    edge = "the margin" if document.margin else "0"
    words = {"p": f"interval includes {edge}", "interval": "after Holm", "equivalence": "after Holm"}
    return f" ({words[pair.alone]})" if pair.alone in words else ""


def stamp(figure_: Figure, evidence: Evidence, document: Verdict | None, width: int = 120) -> None:
    """Print below a figure why its sweep is exploratory."""
    if stamps := (document.exploratory if document else seal.stamps(evidence.folder)):
        more = f" (and {len(stamps) - 1} more)" if len(stamps) > 1 else ""
        figure_.supxlabel(fill(f"exploratory: {stamps[0]}{more}", width), fontsize=8.5, color="#7a4300")


def _arms(ax: Any, evidence: Evidence, values: Mapping[str, list[float]]) -> None:
    color, marker = colors(evidence.arms, evidence.twin), markers(evidence.arms)
    places = {arm: -i for i, arm in enumerate(values)}
    if evidence.is_paired and len({len(v) for v in values.values()}) == 1:
        for seed in range(len(next(iter(values.values())))):
            ax.plot([v[seed] for v in values.values()], list(places.values()), color="#c9c9c9", lw=0.8, zorder=1)
    for arm, found in values.items():
        s, y = summarize(found, bounds=evidence.bounds(evidence.reported)), places[arm]
        ax.scatter(found, [y] * len(found), s=12, color=color[arm], alpha=0.55, lw=0, zorder=2)
        if s.lo is not None and s.hi is not None:
            ax.plot([s.lo, s.hi], [y, y], color=color[arm], lw=2.6, solid_capstyle="butt", zorder=3)
        ax.plot(s.mean, y, marker[arm], ms=8, color=color[arm], mec="white", zorder=4)
    ax.set_yticks(list(places.values()), list(places))
    ax.set_ylim(-len(places) + 0.4, 0.6)
    ax.set_xlabel(label_of(evidence.reported))
    ax.set_title(f"Arms ({len(next(iter(values.values())))} seeds)")
    ax.xaxis.set_major_locator(MaxNLocator(5))


def _differences(ax: Any, evidence: Evidence, pairs: list[Pair], document: Verdict) -> None:
    values = evidence.confirmed(evidence.reported)
    if margin := document.margin:
        ax.axvspan(-margin, margin, color="#009E73", alpha=0.12, lw=0)
    ax.axvline(0, color="#444444", lw=1)
    for i, p in enumerate(pairs):
        color = pair_color(document, p)
        if evidence.is_paired:
            d = np.array(values[p.a][: p.n]) - np.array(values[p.b][: p.n])
            ax.scatter(d, np.full(len(d), -i - 0.16), s=11, color=color, alpha=0.6, lw=0)
        ax.plot(p.interval, [-i, -i], color=color, lw=2.6, solid_capstyle="butt")
        ax.plot(p.difference, -i, "o", ms=7, color=color, mec="white")
        ax.annotate(
            pair_words(document, p), (1.0, -i), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=8.5, color=color,
        )  # fmt: skip
    ax.set_yticks([-i for i in range(len(pairs))], [f"{p.a} − {p.b}" for p in pairs])
    ax.set_ylim(-len(pairs) + 0.4, 0.6)
    better = "right" if evidence.goal_of(evidence.reported) is Goal.MAXIMIZE else "left"
    of = "on the same seed" if evidence.is_paired else "of the means"
    ax.set_xlabel(f"difference in {evidence.reported} {of} (first arm ahead: {better} of 0)")
    ax.set_title("Paired differences" if evidence.is_paired else "Differences (not paired)")
    ax.xaxis.set_major_locator(MaxNLocator(5))


@figure
def learning(evidence: Evidence) -> Iterator[Drawn]:
    """The reported metric and the training loss against gradient evaluations and seconds, for confirm trials."""
    curves = evidence.curves[evidence.curves["stage"] == Stage.CONFIRM]
    wanted = (evidence.reported,) if evidence.declares.game else (evidence.reported, "loss/train")
    if evidence.imported and evidence.definition["evaluations"] == 1:
        return
    names = [
        m for m in dict.fromkeys(wanted) if (curves["name"] == m).any()
    ]  # a single player's loss is not informative
    if not names:
        return
    figure_, axes = panels(len(names), 2, height=2.9, sharey="row")
    color = colors(evidence.arms, evidence.twin)
    over = "studies, each the mean over its confirm seeds," if evidence.studies > 1 else "seeds"
    for row, name in enumerate(names):
        points, dashes = curves[curves["name"] == name], ("-", "--", "-.", ":")
        bands = {arm: banded(points[points["arm"] == arm], evidence.bounds(name)) for arm in evidence.arms}
        for column, axis in enumerate(("step", "seconds")):
            ax = axes[row, column]
            for i, (arm, found) in enumerate(bands.items()):
                if found is None:
                    continue
                steps, seconds, mean, low, high = found
                x = steps if axis == "step" else seconds
                ax.plot(x, mean, color=color[arm], ls=dashes[i // 4 % 4], label=arm)
                ax.fill_between(x, low, high, color=color[arm], alpha=0.16, lw=0)
            words = "steps, as imported" if evidence.imported else evidence.steps_of_curves
            ax.set_xlabel(words if axis == "step" else "seconds of training")
            if column == 0:
                ax.set_ylabel(label_of(name))
            _scale(ax, points)
    figure_.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=min(6, len(evidence.arms))
    )
    whose = "Imported runs" if evidence.imported else "Confirm seeds"
    axis_words = "steps, as imported," if evidence.imported else f"{evidence.steps_of_curves} (the budget)"
    yield Drawn(
        name="learning-curves",
        section="curves",
        caption=f"{whose}: mean over the {over} and its 95% t interval, against {axis_words} "
        "and against seconds. Compare at the end of the schedule: curves may cross while the learning "
        "rate decays.",
        figure=figure_,
    )


def banded(points: pd.DataFrame, bounds: tuple[float, float] = UNBOUNDED) -> tuple[Any, Any, Any, Any, Any] | None:
    """(gradient evaluations, seconds, mean, low, high) over seeds, or over studies where there are several.

    At common gradient evaluations; the seconds are the mean time at each of these. None without points.
    """
    studies, found = list[int](), list[tuple[Any, Any, Any]]()
    for _, trial in points.groupby("trial_id"):
        step, seconds, value = (trial[name].to_numpy() for name in ("step", "seconds", "value"))
        if len(step) > 1 and not np.isnan(seconds).any():
            order = np.argsort(step)
            studies.append(trial["study"].iloc[0])
            found.append((step[order], seconds[order], value[order]))
    if not found:
        return None
    start, end = max(step[0] for step, _, _ in found), min(step[-1] for step, _, _ in found)
    steps = np.unique(np.concatenate([step for step, _, _ in found]))
    steps = steps[(steps >= start) & (steps <= end)]
    if not len(steps):
        return None
    time = np.mean([np.interp(steps, step, seconds) for step, seconds, _ in found], axis=0)
    table = np.array([np.interp(steps, step, value) for step, _, value in found])
    if points["study"].nunique() > 1:
        table = pd.DataFrame(table).groupby(np.array(studies)).mean().to_numpy()
    if len(table) < 2:
        return steps, time, table[0], table[0], table[0]
    sums = [summarize(list(column), bounds=bounds) for column in table.T]
    return steps, time, table.mean(axis=0), np.array([s.lo for s in sums]), np.array([s.hi for s in sums])


def _scale(ax: Any, points: pd.DataFrame) -> None:
    """Log scale for positive values spanning more than two decades; limits from the trials that did not diverge."""
    values = points[points["state"] == State.COMPLETE]["value"]
    good = values[np.isfinite(values)]
    if not len(good):
        return
    low, high = float(good.min()), float(good.max())
    if low > 0 and high / low > 100:
        ax.set_yscale("log")
        ax.set_ylim(low / 1.3, high * 1.3)
    elif (points["state"] != State.COMPLETE).any():
        room = 0.06 * (high - low) or 1.0
        ax.set_ylim(low - room, high + room)
