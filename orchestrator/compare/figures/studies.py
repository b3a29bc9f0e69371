"""Figures for several studies: results and differences per study, what each chose, and where the noise comes from.

Narrow, to fit a column of a paper. In every row the studies are stacked with study 1 on top, so that a study has the
same height for every arm and pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator, NullLocator

from orchestrator.compare.evidence import Evidence, label_of
from orchestrator.compare.figures.answer import answered, drawn_pairs, pair_color, pair_words, stamp
from orchestrator.compare.figures.parameter_axis import log_marks, places
from orchestrator.compare.figures.register import Drawn, figure
from orchestrator.compare.figures.style import NARROW, colors, panels
from orchestrator.definition.space import Parameter
from orchestrator.definition.states import Goal, Stage, State
from orchestrator.statistics.intervals import summarize
from orchestrator.statistics.sentences import settling_words
from orchestrator.statistics.verdict import Pair, Verdict

INCH_A_STUDY, LEAST_ROW, MOST_ROW, INCH_WORDS = 0.085, 0.5, 1.5, 0.2
ROOM = 0.08
"""Share of the value range that an axis leaves free on either side."""


@figure
def verdict(evidence: Evidence) -> Iterator[Drawn]:
    """Top: every arm's studies with their confirm seeds. Bottom: paired differences."""
    units = evidence.units(evidence.reported)
    arms = [arm for arm in evidence.ranked() if arm in units]
    if evidence.studies == 1 or not arms:
        return
    document = answered(evidence)
    pairs = drawn_pairs(document)
    row = min(MOST_ROW, max(LEAST_ROW, INCH_A_STUDY * evidence.studies))
    words = INCH_WORDS / (row + INCH_WORDS)
    heights = [row * len(arms) + 0.75, *([(row + INCH_WORDS) * len(pairs) + 0.85] if pairs else [])]
    figure_, axes = panels(
        len(heights), 1, height=sum(heights) / len(heights), width=NARROW, height_ratios=heights,
    )  # fmt: skip
    _arms(axes[0, 0], evidence, {arm: units[arm] for arm in arms})
    if pairs and document:
        _differences(axes[1, 0], evidence, pairs, document, words)
    stamp(figure_, evidence, document, width=54)
    study = (
        "Each large dot is a study (study 1 on top); the small dots next to it are its runs."
        if evidence.imported
        else "Each large dot is a study, a complete search of its own (study 1 on top); the small dots next to it are "
        "the confirm seeds of the configuration that it chose."
    )
    level = f"{100 * (1 - document.alpha):g}" if document else "95"
    yield Drawn(
        name="verdict",
        section="answer",
        caption=f"{evidence.reported}. {study} Line and band: mean over the "
        "studies and its 95% interval. Crosses at the border: beyond the axis, which covers the trials that trained "
        "to "
        "the end."
        + (
            f" Bottom: difference between two arms per study, its mean and {level}% interval; the verdict also "
            "requires p < alpha after Holm's correction."
            if pairs
            else ""
        ),
        figure=figure_,
    )


def _arms(ax: Any, evidence: Evidence, units: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
    color = colors(evidence.arms, evidence.twin)
    confirm = evidence.trials[evidence.trials["stage"] == Stage.CONFIRM]
    limits = _limits(confirm[confirm["state"] == State.COMPLETE][evidence.reported].to_list())
    for i, (arm, studies) in enumerate(units.items()):
        s = summarize([float(np.mean(v)) for v in studies.values()], bounds=evidence.bounds(evidence.reported))
        _band(ax, _span(i), s.mean, (s.lo, s.hi), color[arm])
        _dots(ax, _span(i), studies, evidence.studies, color[arm], limits)
    _rows(ax, list(units))
    ax.set_xlim(*limits)
    ax.set_xlabel(label_of(evidence.reported))
    ax.set_title(f"Arms ({evidence.studies} studies)")


def _differences(ax: Any, evidence: Evidence, pairs: Sequence[Pair], document: Verdict, words: float) -> None:
    """`words`: share of a row's height reserved for its verdict, at the top."""
    units, trained = evidence.units(evidence.reported), _trained(evidence)
    if margin := document.margin:
        ax.axvspan(-margin, margin, color="#009E73", alpha=0.12, lw=0)
    ax.axvline(0, color="#444444", lw=1)
    found = []
    for p in pairs:
        a, b = units[p.a], units[p.b]
        found.append({r: [x - y for x, y in zip(a[r], b[r], strict=True)] for r in a if r in b})
    whole = [
        d for p, ds in zip(pairs, found, strict=True) for r, values in ds.items() for d in values
        if (p.a, r) in trained and (p.b, r) in trained
    ]  # fmt: skip
    limits = _limits([*whole, 0.0])
    for i, (p, ds) in enumerate(zip(pairs, found, strict=True)):
        _band(ax, _span(i, words), p.difference, p.interval, pair_color(document, p))
        _dots(ax, _span(i, words), ds, evidence.studies, pair_color(document, p), limits)
        ax.annotate(
            pair_words(document, p), (0.0, -i + 0.5), xycoords=("axes fraction", "data"), xytext=(3, -2),
            textcoords="offset points", va="top", fontsize=8.5, color=pair_color(document, p), zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
    _rows(ax, [f"{p.a} −\n{p.b}" for p in pairs])
    ax.set_xlim(*limits)
    better = "right" if evidence.goal_of(evidence.reported) is Goal.MAXIMIZE else "left"
    ax.set_xlabel(f"difference in {evidence.reported} in the same study\n(first arm ahead: {better} of 0)")
    ax.set_title("Differences, study by study")


def _trained(evidence: Evidence) -> set[tuple[str, int]]:
    """(arm, study) pairs in which no confirm trial diverged."""
    confirm = evidence.trials[evidence.trials["stage"] == Stage.CONFIRM]
    good = confirm.groupby(["arm", "study"])["state"].apply(lambda states: bool((states == State.COMPLETE).all()))
    return {(str(arm), int(study)) for arm, study in good[good].index}


def _limits(values: Sequence[float]) -> tuple[float, float]:
    finite = [v for v in values if np.isfinite(v)] or [0.0]
    low, high = min(finite), max(finite)
    room = ROOM * (high - low) or 1.0
    return low - room, high + room


def _span(row: int, words: float = 0.0) -> tuple[float, float]:
    """Bottom and top of the studies in a row."""
    return -row - 0.44, -row + 0.44 - 0.9 * words


def _heights(span: tuple[float, float], studies: int) -> dict[int, float]:
    """Study -> its vertical position in a row."""
    low, high = span
    free = 0.09 * (high - low)
    return dict(enumerate(np.linspace(high - free, low + free, studies), start=1))


def _band(ax: Any, between: tuple[float, float], mean: float, interval: Sequence[float | None], color: str) -> None:
    low, high = interval
    if low is not None and high is not None:
        ax.fill_betweenx(between, low, high, color=color, alpha=0.18, lw=0, zorder=1)
    ax.plot([mean, mean], between, color=color, lw=1.4, zorder=2)


def _dots(
    ax: Any,
    span: tuple[float, float],
    found: Mapping[int, Sequence[float]],
    studies: int,
    color: str,
    limits: tuple[float, float],
) -> None:
    low, high = limits
    for study, y in _heights(span, studies).items():
        values = found.get(study, ())
        if not len(values):
            continue
        mean = float(np.mean(values))
        if not low <= mean <= high:
            ax.plot(min(max(mean, low), high), y, "x", color="#444444", ms=5, clip_on=False, zorder=5)
            continue
        if len(values) > 1:
            ax.scatter(values, [y] * len(values), s=6, color=color, alpha=0.7, lw=0, zorder=3)
        ax.scatter([mean], [y], s=26, color=color, edgecolors="white", lw=0.6, zorder=4)


def _rows(ax: Any, names: Sequence[str]) -> None:
    ax.set_yticks([-i for i in range(len(names))], names)
    ax.set_ylim(-len(names) + 0.5, 0.5)
    ax.grid(visible=False, axis="y")
    for i in range(1, len(names)):
        ax.axhline(-i + 0.5, color="#e4e4e4", lw=0.7)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(5))


@figure
def chosen(evidence: Evidence) -> Iterator[Drawn]:
    """One axis per hyperparameter with the choice of every study of every arm."""
    known: dict[str, dict[str, Parameter]] = {}
    for arm in evidence.arms:
        for p in evidence.tuned_parameters(arm):
            known.setdefault(p.name, {})[arm] = p
    choices = {arm: evidence.chosen(arm) for arm in evidence.arms}
    if evidence.studies == 1 or not known or not any(choices.values()):
        return
    heights = [0.6 + 0.34 * len(arms) for arms in known.values()]
    figure_, axes = panels(
        len(known), 1, height=sum(heights) / len(heights), width=NARROW, height_ratios=heights,
    )  # fmt: skip
    for ax, (name, arms) in zip(axes.flat, known.items(), strict=True):
        _choices(ax, evidence, name, arms, choices)
    yield Drawn(
        name="chosen",
        section="sensitivity",
        caption="What the studies chose: one dot per study, a line over the arm's search range, the median as a "
        "vertical tick. The spread shows how well this tuning budget determines the optimum. Dots at the end "
        "of a line: the optimum may lie outside the range.",
        figure=figure_,
    )


def _choices(
    ax: Any,
    evidence: Evidence,
    name: str,
    arms: Mapping[str, Parameter],
    choices: Mapping[str, Mapping[int, Mapping[str, Any]]],
) -> None:
    color = colors(evidence.arms, evidence.twin)
    first = next(iter(arms.values()))
    if first.kind == "categorical":
        levels = list(dict.fromkeys(value for p in arms.values() for value in p.values))
        first = Parameter(name=name, kind="categorical", values=tuple(levels))
    for i, (arm, p) in enumerate(arms.items()):
        scale = first if first.kind == "categorical" else p
        given = {study: found[name] for study, found in choices[arm].items() if found.get(name) is not None}
        x = places(scale, pd.Series(list(given.values()), dtype=object if p.kind == "categorical" else float))[0]
        y = [-i + 0.26 - 0.52 * (study - 1) / max(1, evidence.studies - 1) for study in given]
        if p.kind != "categorical":
            ends = places(p, pd.Series([p.low, p.high], dtype=float))[0]
            ax.plot(ends, [-i, -i], color="#c9c9c9", lw=1, zorder=1)
            if len(x):
                ax.plot([np.median(x)] * 2, [-i - 0.34, -i + 0.34], color=color[arm], lw=1.6, zorder=2)
        ax.scatter(x, y, s=20, color=color[arm], alpha=0.85, edgecolors="white", lw=0.5, zorder=3)
    ax.set_yticks([-i for i in range(len(arms))], list(arms))
    ax.set_ylim(-len(arms) + 0.5, 0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    _scale(ax, first, list(arms.values()))
    ax.set_title(f"1 − {name}" if first.one_minus else name)


def _scale(ax: Any, first: Parameter, parameters: Sequence[Parameter]) -> None:
    """An axis over the ranges of all arms, with a margin of a tenth on either side."""
    if first.kind == "categorical":
        ticks = places(first, pd.Series([], dtype=object))[1] or []
        long = sum(map(len, ticks)) > 40
        ax.set_xticks(range(len(ticks)), ticks, rotation=30 if long else 0, ha="right" if long else "center")
        ax.set_xlim(-0.5, len(ticks) - 0.5)
        return
    ends = [float(v) for p in parameters for v in places(p, pd.Series([p.low, p.high], dtype=float))[0]]
    low, high = min(ends), max(ends)
    if all(p.log or p.one_minus for p in parameters):
        ax.set_xscale("log")
        ax.set_xlim(low / (high / low) ** ROOM, high * (high / low) ** ROOM)
        ax.set_xticks(marks := log_marks(low, high, 5), [f"{m:g}" for m in marks])
        ax.xaxis.set_minor_locator(NullLocator())
        return
    ax.set_xlim(low - ROOM * (high - low), high + ROOM * (high - low))
    ax.xaxis.set_major_locator(MaxNLocator(5))


@figure
def noise(evidence: Evidence) -> Iterator[Drawn]:
    """For each pair, the shares of search and training seed in the variance of a study's difference."""
    document = answered(evidence) if evidence.studies > 1 else None
    pairs = [(p, p.components.share_of_search) for p in drawn_pairs(document) if p.components]
    if document is None or not pairs:
        return
    figure_, axes = panels(1, 1, height=1.05 + 0.62 * len(pairs), width=NARROW)
    ax = axes[0, 0]
    for i, (p, search) in enumerate(pairs):
        ax.barh(-i + 0.12, search, height=0.34, color="#0072B2", label="search" if i == 0 else None)
        ax.barh(-i + 0.12, 1 - search, left=search, height=0.34, color="#E69F00", label="" if i else "training seeds")
        for left, share in ((0.0, search), (search, 1 - search)):
            if share > 0.08:
                ax.text(left + share / 2, -i + 0.12, f"{share:.0%}", ha="center", va="center", fontsize=8.5,
                        color="white" if left == 0 else "black")  # fmt: skip
        words = settling_words(p) if p.verdict != "inconclusive" else f"to settle it: {settling_words(p)}"
        if p is document.twin:
            words = "twin: no difference to settle"
        ax.text(0.005, -i - 0.12, fill(words, 44), ha="left", va="top", fontsize=8.5)
    ax.set_yticks([-i + 0.12 for i in range(len(pairs))], [f"{p.a} −\n{p.b}" for p, _ in pairs])
    ax.set_ylim(-len(pairs) + 0.5, 0.45)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    ax.set_xlabel("share of the variance of a study's difference")
    ax.grid(visible=False)
    ax.tick_params(axis="y", length=0)
    figure_.legend(loc="outside upper center", ncols=2)
    yield Drawn(
        name="noise",
        section="noise",
        caption="Where the noise of each comparison comes from: the search (which points were drawn and on which tune "
        "seeds they were evaluated) and the training seeds of its confirm trials, after averaging over a "
        "study's confirm seeds. Below each bar: the cheapest way to settle the question, taking the "
        "differences seen so far at face value.",
        figure=figure_,
    )
