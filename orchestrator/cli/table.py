"""`table`: one row per value of a hyperparameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from orchestrator import terminal
from orchestrator.cli.app import ROOT, Exit, Json, Root, Sweep, app, data, emit, fail, show, show_stamps
from orchestrator.definition.kinds import short
from orchestrator.definition.states import Stage
from orchestrator.statistics.slowdown import relative

if TYPE_CHECKING:
    from orchestrator.compare.value_rows import ByValue, Row


@app.command()
def table(
    sweep: Sweep = "@last",
    by: Annotated[str, typer.Option(help="A hyperparameter, for example rotation.")] = ...,  # type: ignore[assignment]
    baseline: Annotated[str, typer.Option(help="One of its values; adds differences from it and slowdowns.")] = "",
    columns: Annotated[
        str, typer.Option(help="Additional final metrics, comma-separated; default: all geometry/...")
    ] = "",
    metric: Annotated[str, typer.Option(help="A metric other than the one that the sweep reports.")] = "",
    root: Root = ROOT,
    as_json: Json = False,
) -> None:
    """Show the best configuration for each value of a hyperparameter: metric, slowdown, geometry.

    Example: geosweep table @last --by rotation --baseline identity
    """
    from orchestrator.compare import sweep_table
    from orchestrator.statistics.pairing import Refused
    from orchestrator.storage import folder
    from orchestrator.trial import noticed

    asked = [c.strip() for c in columns.split(",") if c.strip()]
    try:
        found = sweep_table.table(folder.find(root, sweep), by, baseline=baseline, columns=asked, metric=metric)
    except Refused as reason:
        fail(f"no table: {reason}", Exit.NOT_FOUND)
    if as_json:
        emit(found.document())
    else:
        show(_rich(found))
        for line in noticed.reused_words(found.reused):
            terminal.say(data, line)
        show_stamps(found.exploratory)


def _rich(found: ByValue) -> Table:
    """The table for people."""
    from orchestrator.compare import by_value

    rows, varied, columns = found.rows, found.varied, found.columns
    several = len({row.optimizer for row in rows}) > 1
    shown = Table(title=f"{found.sweep_id}: {found.metric} by {found.by}", caption=_caption(found))
    against = bool(found.baseline)
    units = "studies" if found.unit == "study" else "n"
    heads = [*(["optimizer"] if several else []), found.by, *varied, "tried", "stage", units, found.metric]
    heads += ["difference", "ratio", f"slowdown ({by_value.CURVE})"] if against else []
    for name in [*heads, *(c.removeprefix("geometry/") for c in columns)]:
        shown.add_column(name, justify="left" if name in ("optimizer", found.by) else "right", no_wrap=True)
    for row in rows:
        cells = [row.optimizer] if several else []
        cells += [_one(row.value), *(_setting(row, name) for name in varied)]
        n = f"{row.n}" + (f" ({row.diverged} diverged)" if row.diverged else "")
        value = "diverged" if row.diverged and row.mean is None else _with_interval(row.mean, row.interval)
        cells += [str(row.configurations), _stage(row), n, value]
        if against:
            b = row.against_baseline
            cells += [
                _with_interval(b.difference, b.interval) if b else "-",
                _short(b.ratio) if b else "-",
                f"{relative(b.slowdown):+.0%}" if b and b.slowdown is not None else "-",
            ]
        shown.add_row(*cells, *(_short(row.columns[name]) for name in columns))
    return shown


def _caption(found: ByValue) -> str:
    from orchestrator.compare import by_value
    from orchestrator.statistics.intervals import cut_words

    each = "of each study " if found.unit == "study" else ""
    words = [f"each row: the configuration {each}with the best {found.tuned} on the tune seeds; 95% t intervals"]
    if found.bounds:
        intervals = [row.interval or (None, None) for row in found.rows]
        words[0] += f", {cut}" if (cut := cut_words(found.metric, found.bounds, intervals)) else ""
    if any(row.stage is Stage.TUNE for row in found.rows):
        words.append("rows of the tune stage were chosen for the number they show: optimistic")
    if any(row.feasible is False for row in found.rows):
        words.append("(breaks): no configuration with this value satisfies the outcome constraints")
    if found.baseline:
        words.append(
            f"slowdown: how much longer than with {found.baseline} it took to the same {by_value.CURVE} "
            "(-50%: half as long)"
        )
    if len({row.configurations for row in found.rows}) > 1:
        words.append("values were tried unequally often (tried): more tries give a better best")
    return "; ".join(words)


def _stage(row: Row) -> str:
    return f"{row.stage}{' (breaks)' if row.feasible is False else ''}"


def _setting(row: Row, name: str) -> str:
    """A hyperparameter of a row: its value, or what its studies chose."""
    from orchestrator.compare.evidence import numeric

    value: Any = row.parameters.get(name)
    if name in row.differ:
        return (" to " if numeric(value) else ", ").join(map(short, value))
    return _short(value)


def _one(value: Any) -> str:
    return short(value)


def _short(value: Any) -> str:
    return "-" if value is None else short(value)


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if interval is None else f"{value:.4g} [{interval[0]:.3g}, {interval[1]:.3g}]"
