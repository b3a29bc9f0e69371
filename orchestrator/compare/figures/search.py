"""Figures of the search: a slice per hyperparameter, a pair of them as a map, importance, parallel coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection

from optim_core import HeatMap
from orchestrator.compare import currencies, search_curves, tuning
from orchestrator.compare.evidence import Evidence, label_of, numeric
from orchestrator.compare.figures.parameter_axis import draw_axis, places
from orchestrator.compare.figures.register import Drawn, figure
from orchestrator.compare.figures.style import SEQUENTIAL, colors, markers, panels
from orchestrator.definition.columns import of_parameter
from orchestrator.definition.space import Parameter
from orchestrator.definition.states import State
from orchestrator.search.importance import Importance, importances
from orchestrator.statistics.intervals import summarize

ACROSS, MOST_LINES, BINS, MOST_MARKS = 4, 300, 6, 20


@figure
def slices(evidence: Evidence) -> Iterator[Drawn]:
    """One row of panels per arm: the tuned metric against each hyperparameter."""
    for arm in evidence.arms:
        frame, parameters = evidence.configurations[arm], evidence.tuned_parameters(arm)
        parameters = [p for p in parameters if len(frame) and of_parameter(p.name) in frame]
        if not parameters or frame["value"].isna().all():
            continue
        rows, columns = -(-len(parameters) // ACROSS), min(ACROSS, max(2, len(parameters)))
        figure_, axes = panels(rows, columns, height=2.7, sharey=True)
        for ax, p in zip(axes.flat, parameters, strict=False):
            _slice(ax, evidence, arm, frame, p)
        for ax in axes.flat[len(parameters) :]:
            ax.set_visible(False)
        for row in axes:
            row[0].set_ylabel(label_of(evidence.tuned))
        diamonds = (
            "Diamonds: each study's choice, mean over its confirm seeds; band: mean over studies and its 95% interval."
            if evidence.studies > 1
            else "Diamond and band: the chosen configuration on the confirm seeds, mean and 95% interval."
        )
        dots = "configuration of the search (hollow: drawn at random; bars"
        if evidence.imported:
            dots = "configuration (bars"
            diamonds = "Diamond and band: the chosen configuration on the other seeds, mean and 95% interval."
        yield Drawn(
            name=f"sensitivity-{_plain(arm)}",
            section="sensitivity",
            caption=f"{arm}: the tuned metric at the end of the budget against each hyperparameter; every dot is a "
            f"{dots}: spread over tune seeds; crosses at the border: diverged). Lines: mean of each level, with its "
            f"range. {diamonds} Hatched: the outer 5% of the range, "
            "where an optimum may lie outside.",
            figure=figure_,
        )


def _slice(ax: Any, evidence: Evidence, arm: str, frame: pd.DataFrame, p: Parameter) -> None:
    color = colors(evidence.arms, evidence.twin)[arm]
    here = frame.dropna(subset=[of_parameter(p.name)])
    good, bad = here[here["state"] == State.COMPLETE], here[here["state"] == State.DIVERGED]
    x_good, ticks = places(p, good[of_parameter(p.name)])
    if p.kind == "categorical":
        _levels(ax, x_good, good["value"], color, ordered=numeric(p.values))
    random = good["random"].to_numpy(dtype=bool)
    x, y, spread = np.asarray(x_good, dtype=float), good["value"].to_numpy(), good["spread"].to_numpy()
    if spread.any():
        ax.errorbar(x, y, yerr=spread, fmt="none", ecolor=color, alpha=0.35, lw=1)
    ax.scatter(x[random], y[random], s=22, facecolors="white", edgecolors=color, lw=1.2, zorder=3)
    ax.scatter(x[~random], y[~random], s=24, color=color, alpha=0.75, lw=0, zorder=3)
    if len(bad):
        ax.plot(
            places(p, bad[of_parameter(p.name)])[0],
            [0.03] * len(bad),
            "x",
            color="#444444",
            ms=6,
            transform=ax.get_xaxis_transform(),
        )
    _chosen(ax, evidence, arm, p, color)
    draw_axis(ax, p, ticks)
    edges = [e for e in tuning.edges(evidence, arm) if e.parameter == p.name and e.is_doubtful]
    ax.set_title(p.name, color="#B00020" if edges else "black")
    if edges:
        words = (f"{e.where} edge" + (f" ({len(e.at)} of {e.studies})" if e.studies > 1 else "") for e in edges)
        ax.set_xlabel(f"chosen at the {' and '.join(words)}!", color="#B00020")


def _chosen(ax: Any, evidence: Evidence, arm: str, p: Parameter, color: str) -> None:
    chosen = {study: given[p.name] for study, given in evidence.chosen(arm).items() if given.get(p.name) is not None}
    confirmed = evidence.confirmed(evidence.tuned).get(arm)
    if not chosen or not confirmed:
        return
    s = summarize(confirmed, bounds=evidence.bounds(evidence.tuned))
    at = {study: float(places(p, pd.Series([value]))[0][0]) for study, value in chosen.items()}
    if s.lo is not None and s.hi is not None:
        ax.axhspan(s.lo, s.hi, color=color, alpha=0.10, lw=0, zorder=0)
    if evidence.studies > 1:
        units = evidence.units(evidence.tuned)[arm]
        for study, place in at.items():
            if study in units:
                ax.plot(place, np.mean(units[study]), "D", color="black", ms=5, mec="white", zorder=5)
        return
    if s.lo is not None and s.hi is not None:
        ax.plot([at[1], at[1]], [s.lo, s.hi], color="black", lw=1.6, zorder=4)
    ax.plot(at[1], s.mean, "D", color="black", ms=6, mec="white", zorder=5)


def _levels(ax: Any, x: Any, values: pd.Series, color: str, *, ordered: bool) -> None:
    """Mean of each level and its range over configurations and seeds; only ordered levels are joined."""
    groups = pd.DataFrame({"x": x, "y": values.to_numpy()}).groupby("x")["y"]
    found = groups.agg(["mean", "min", "max"])
    if not ordered:
        ax.vlines(found.index, found["min"], found["max"], color=color, alpha=0.15, lw=14, zorder=1)
        ax.hlines(found["mean"], found.index - 0.25, found.index + 0.25, color=color, lw=1.8, zorder=2)
        return
    ax.fill_between(found.index, found["min"], found["max"], color=color, alpha=0.10, lw=0, zorder=1)
    ax.plot(found.index, found["mean"], color=color, lw=1.3, zorder=2)


@figure
def maps(evidence: Evidence) -> Iterator[Drawn]:
    """Heat map of the best value at each pair of values of the two hyperparameters that an optimizer declares."""
    for arm in evidence.arms:
        frame = evidence.configurations[arm]
        known = {p.name: p for p in evidence.tuned_parameters(arm)}
        pair = evidence.optimizer_declares(arm).heat_map
        if pair is None or not len(frame) or pair.across not in known or pair.up not in known:
            continue
        table = _cells(frame, known[pair.across], known[pair.up], evidence.sign)
        if table.notna().to_numpy().sum() < 4:
            continue
        figure_, axes = panels(1, 1, height=1.4 + 0.42 * len(table), width=6.5)
        _heat(figure_, axes[0, 0], table, evidence, pair)
        yield Drawn(
            name=f"map-{_plain(arm)}-{_plain(pair.across)}-{_plain(pair.up)}",
            section="sensitivity",
            caption=f"{arm}: best {evidence.tuned} over the other hyperparameters at each {pair.across} "
            f"({pair.across_means}) and {pair.up} ({pair.up_means}), tune seeds. Boxed: the best cell. White: never "
            "tried.",
            figure=figure_,
        )


def _cells(frame: pd.DataFrame, across: Parameter, up: Parameter, sign: float) -> pd.DataFrame:
    """Best value for each pair of levels; continuous ranges are binned into six."""
    x, y = of_parameter(across.name), of_parameter(up.name)
    data = frame.dropna(subset=["value", x, y]).copy()
    for p, column in ((across, x), (up, y)):
        values = data[column].to_numpy(dtype=float)
        if len(np.unique(values)) > BINS + 2:
            cut = np.geomspace(p.low, p.high, BINS + 1) if p.log else np.linspace(p.low, p.high, BINS + 1)
            index = np.clip(np.searchsorted(cut, values, side="right") - 1, 0, BINS - 1)
            middle = np.sqrt(cut[:-1] * cut[1:]) if p.log else (cut[:-1] + cut[1:]) / 2
            data[column] = middle[index]
    found = data.groupby([y, x])["value"].agg("max" if sign > 0 else "min")
    return found.unstack().sort_index(ascending=False)


def _heat(figure_: Any, ax: Any, table: pd.DataFrame, evidence: Evidence, pair: HeatMap) -> None:
    cells = table.to_numpy(dtype=float)
    shade = SEQUENTIAL if evidence.sign > 0 else f"{SEQUENTIAL}_r"
    image = ax.imshow(cells, cmap=shade, aspect="auto")
    middle = (np.nanmax(cells) + np.nanmin(cells)) / 2
    for (i, j), value in np.ndenumerate(cells):
        if np.isfinite(value):
            dark = (value < middle) == (evidence.sign > 0)
            ax.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
    best = np.unravel_index(
        np.nanargmax(evidence.sign * np.nan_to_num(cells, nan=-evidence.sign * np.inf)), cells.shape
    )
    ax.add_patch(_box(best))
    ax.set_xticks(range(len(table.columns)), [f"{v:.3g}" for v in table.columns])
    ax.set_yticks(range(len(table.index)), [f"{v:.3g}" for v in table.index])
    ax.set_xlabel(f"{pair.across}  ({pair.across_means})")
    ax.set_ylabel(pair.up)
    ax.grid(visible=False)
    figure_.colorbar(image, ax=ax, label=label_of(evidence.tuned))


def _box(cell: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((cell[1] - 0.5, cell[0] - 0.5), 1, 1, fill=False, edgecolor="#D55E00", lw=2.5)


@figure
def importance(evidence: Evidence) -> Iterator[Drawn]:
    """PED-ANOVA importance compared with chance, one panel per arm with significant shares."""
    found = {arm: shares for arm in evidence.arms if (shares := shares_of(evidence, arm))}
    if not found:
        return
    columns = min(ACROSS, max(2, len(found)))
    rows = -(-len(found) // columns)
    figure_, axes = panels(rows, columns, height=0.9 + 0.3 * max(map(len, found.values())))
    for ax, (arm, shares) in zip(axes.flat, found.items(), strict=False):
        names = list(shares)[::-1]
        ax.barh(names, [shares[n].share for n in names], color=colors(evidence.arms, evidence.twin)[arm], height=0.6)
        ax.plot([shares[n].by_chance for n in names], range(len(names)), "|", ms=14, mew=1.6, color="#444444")
        for i, n in enumerate(names):
            ax.text(
                max(shares[n].share, shares[n].by_chance) + 0.02, i, f"{shares[n].share:.0%}", va="center", fontsize=8.5
            )
        ax.set_xlim(0, 1.15)
        ax.set_xticks([0, 0.5, 1])
        ax.set_title(arm)
    for ax in axes.flat[len(found) :]:
        ax.set_visible(False)
    figure_.supxlabel("share of importance (PED-ANOVA)", fontsize=9.5)
    of = "" if evidence.imported else " of the search"
    yield Drawn(
        name="importance",
        section="tuning",
        caption=f"Which hyperparameter decides whether a configuration{of} is among the good ones (PED-ANOVA; shares "
        "within an arm). Vertical ticks: the same with randomly permuted values. Arms whose shares are not "
        "significantly different from chance (p > 0.05) are left out.",
        figure=figure_,
    )


def shares_of(evidence: Evidence, arm: str) -> dict[str, Importance]:
    """Parameter -> importance for one arm; empty when there is too little data."""
    frame, parameters = evidence.configurations[arm], evidence.tuned_parameters(arm)
    if not len(frame) or not parameters:
        return {}
    good = frame.dropna(subset=["value"])
    names = {of_parameter(p.name): p.name for p in parameters}
    columns = good[[name for name in names if name in good]]
    rows = [{names[str(k)]: v for k, v in row.items() if v == v} for row in columns.to_dict("records")]
    values = good["value"]
    if evidence.studies > 1:  # each study has its own tune seeds, which may be easier or harder
        values = values - values.groupby(good["study"]).transform("median")
    return importances(parameters, rows, [float(v) for v in values], evidence.goal)


@figure
def parallel(evidence: Evidence) -> Iterator[Drawn]:
    """Parallel coordinates: every configuration is a line through its hyperparameters, colored by its value."""
    for arm in evidence.arms:
        frame, parameters = evidence.configurations[arm], evidence.tuned_parameters(arm)
        parameters = [p for p in parameters if len(frame) and of_parameter(p.name) in frame]
        good = frame.dropna(subset=["value"]) if len(frame) else frame
        if len(parameters) < 2 or len(good) < FEWEST_LINES:
            continue
        best_first = good.assign(score=evidence.sign * good["value"]).sort_values("score").tail(MOST_LINES)
        figure_, axes = panels(1, 1, height=2.9)
        _lines(figure_, axes[0, 0], evidence, best_first, parameters)
        found = "imported configuration" if evidence.imported else "configuration of the search"
        of_each = " of each study" if evidence.studies > 1 else ""
        more = f" The best {MOST_LINES} of {len(good)}." if len(good) > MOST_LINES else ""
        yield Drawn(
            name=f"parallel-{_plain(arm)}",
            section="tuning",
            caption=f"{arm}: every {found}, colored by {evidence.tuned}, the best one{of_each} "
            f"thick. A line is interrupted at parameters that its configuration does not have.{more}",
            figure=figure_,
        )


FEWEST_LINES = 4


def _lines(figure_: Any, ax: Any, evidence: Evidence, frame: pd.DataFrame, parameters: list[Parameter]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    columns = np.column_stack([_shares(p, frame[of_parameter(p.name)]) for p in parameters])
    complete = (
        frame[frame["state"] == State.COMPLETE]["value"] if (frame["state"] == State.COMPLETE).any() else frame["value"]
    )
    shade = SEQUENTIAL if evidence.sign > 0 else f"{SEQUENTIAL}_r"
    color = ScalarMappable(Normalize(complete.min(), complete.max()), shade)
    lines = [np.column_stack([np.arange(len(parameters)), row]) for row in columns]
    ax.add_collection(LineCollection(lines, colors=color.to_rgba(frame["value"].to_numpy()), lw=1.1, alpha=0.75))
    best = ~frame["study"].duplicated(keep="last").to_numpy()
    ax.plot(np.arange(len(parameters)), columns[best].T, color="#D55E00", lw=3 if best.sum() == 1 else 1.8, zorder=4)
    for i, p in enumerate(parameters):
        ax.axvline(i, color="#444444", lw=1)
        for share, text in _marks(p):
            ax.annotate(text, (i, share), xytext=(5, 0), textcoords="offset points", fontsize=8, va="center", zorder=5,
                        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8})  # fmt: skip
    ax.set_xticks(range(len(parameters)), [p.name for p in parameters])
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.set_xlim(-0.1, len(parameters) - 0.75)
    ax.set_ylim(-0.05, 1.05)
    ax.spines[["left", "bottom"]].set_visible(False)
    figure_.colorbar(color, ax=ax, label=label_of(evidence.tuned))


def _shares(p: Parameter, values: pd.Series) -> Any:
    if p.kind == "categorical":
        index, ticks = places(p, values.fillna(p.values[0]))
        found = np.asarray(index, dtype=float) / max(1, len(ticks or ()) - 1)
    else:
        found = np.array([tuning.position(p, v) if v == v else np.nan for v in values.astype(float)])
    return np.where(values.isna(), np.nan, found)


def _marks(p: Parameter) -> list[tuple[float, str]]:
    if p.kind == "categorical":
        ticks = places(p, pd.Series([], dtype=object))[1] or []
        return [(i / max(1, len(ticks) - 1), t) for i, t in enumerate(ticks)]
    return [(0.0, f"{p.low:.3g}"), (1.0, f"{p.high:.3g}")]


@figure
def expected(evidence: Evidence) -> Iterator[Drawn]:
    """Expected best value against the number of configurations tried."""
    found, why = search_curves.curves(evidence)
    if not found:
        return
    figure_, axes = panels(1, 1, height=3.0, width=6.5)
    ax = axes[0, 0]
    for arm, c in found.items():
        color, half = colors(evidence.arms, evidence.twin)[arm], max(1, len(c.trials) // 2)
        few = len(c.trials) <= MOST_MARKS
        ax.plot(
            c.trials[:half], c.mean[:half], color=color, marker=markers(evidence.arms)[arm] if few else "", label=arm
        )
        ax.plot(c.trials[half - 1 :], c.mean[half - 1 :], color=color, ls=":")
        ax.fill_between(c.trials, c.low, c.high, color=color, alpha=0.13, lw=0)
    ax.set_xlabel("configurations tried at random")
    ax.set_ylabel(f"expected best {evidence.tuned}")
    if max(len(c.trials) for c in found.values()) > MOST_MARKS:
        ax.set_xscale("log")
    else:
        ax.xaxis.get_major_locator().set_params(integer=True)
    tune = len(evidence.definition["seeds"]["tune"]) // evidence.studies
    budget = float(evidence.definition["budget"]["per_trial"]) * tune
    if budget:
        top = ax.secondary_xaxis("top", functions=(lambda n: n * budget, lambda g: g / budget))
        top.set_xlabel(f"{currencies.unit_of(evidence)} spent on tuning")
    if evidence.studies > 1:
        one = max(search_curves.most_random(evidence, arm) for arm in found)
        ax.axvline(one, color="#444444", lw=1, ls=(0, (4, 2)), label="drawn in one study")
    ax.legend()
    pooled = f", of all {evidence.studies} studies together" if evidence.studies > 1 else ""
    yield Drawn(
        name="expected-best",
        section="tuning",
        caption="What tuning buys: the expected best value after trying that many configurations, from those drawn "
        f"before any result was looked at{pooled} (unbiased; 95% bootstrap bands over configurations; dotted beyond "
        f"half of them, where few support it). {why.capitalize() + '.' if why else ''}",
        figure=figure_,
    )


def _plain(word: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in word.lower())
