"""`table`: one row per value of a hyperparameter."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from orchestrator import terminal
from orchestrator.cli.app import ROOT, Exit, Json, Root, Sweep, app, data, emit, fail, show, show_stamps
from orchestrator.definition.kinds import short
from orchestrator.definition.states import Stage
from orchestrator.statistics.slowdown import relative


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
        document = sweep_table.document(folder.find(root, sweep), by, baseline=baseline, columns=asked, metric=metric)
    except Refused as reason:
        fail(f"no table: {reason}", Exit.NOT_FOUND)
    if as_json:
        emit(document)
    else:
        show(_rich(document))
        for line in noticed.reused_words(document.get("reused", {})):
            terminal.say(data, line)
        show_stamps(document["exploratory"])


def _rich(document: dict[str, Any]) -> Table:
    """The document for people."""
    from orchestrator.compare import by_value

    rows, varied, columns = document["rows"], document["varied"], document["columns"]
    several = len({row["optimizer"] for row in rows}) > 1
    shown = Table(title=f"{document['sweep_id']}: {document['metric']} by {document['by']}", caption=_caption(document))
    against = bool(document["baseline"])
    units = "studies" if document["unit"] == "study" else "n"
    heads = [*(["optimizer"] if several else []), document["by"], *varied, "tried", "stage", units, document["metric"]]
    heads += ["difference", "ratio", f"slowdown ({by_value.CURVE})"] if against else []
    for name in [*heads, *(c.removeprefix("geometry/") for c in columns)]:
        shown.add_column(name, justify="left" if name in ("optimizer", document["by"]) else "right", no_wrap=True)
    for row in rows:
        cells = [row["optimizer"]] if several else []
        cells += [_one(row["value"]), *(_setting(row, name) for name in varied)]
        n = f"{row['n']}" + (f" ({row['diverged']} diverged)" if row["diverged"] else "")
        value = "diverged" if row["diverged"] and row["mean"] is None else _with_interval(row["mean"], row["interval"])
        cells += [str(row["configurations"]), _stage(row), n, value]
        if against:
            b = row["against_baseline"]
            cells += [
                _with_interval(b["difference"], b["interval"]) if b else "-",
                _short(b["ratio"]) if b else "-",
                f"{relative(b['slowdown']):+.0%}" if b and b["slowdown"] is not None else "-",
            ]
        shown.add_row(*cells, *(_short(row["columns"][name]) for name in columns))
    return shown


def _caption(document: dict[str, Any]) -> str:
    from orchestrator.compare import by_value
    from orchestrator.statistics.intervals import cut_words

    each = "of each study " if document["unit"] == "study" else ""
    words = [f"each row: the configuration {each}with the best {document['tuned']} on the tune seeds; 95% t intervals"]
    if "bounds" in document:
        intervals = [row["interval"] or (None, None) for row in document["rows"]]
        words[0] += f", {cut}" if (cut := cut_words(document["metric"], document["bounds"], intervals)) else ""
    if any(row["stage"] is Stage.TUNE for row in document["rows"]):
        words.append("rows of the tune stage were chosen for the number they show: optimistic")
    if any(row.get("feasible") is False for row in document["rows"]):
        words.append("(breaks): no configuration with this value satisfies the outcome constraints")
    if document["baseline"]:
        words.append(
            f"slowdown: how much longer than with {document['baseline']} it took to the same {by_value.CURVE} "
            "(-50%: half as long)"
        )
    if len({row["configurations"] for row in document["rows"]}) > 1:
        words.append("values were tried unequally often (tried): more tries give a better best")
    return "; ".join(words)


def _stage(row: dict[str, Any]) -> str:
    return f"{row['stage']}{' (breaks)' if row.get('feasible') is False else ''}"


def _setting(row: dict[str, Any], name: str) -> str:
    """A hyperparameter of a row: its value, or what its studies chose."""
    from orchestrator.compare.evidence import numeric

    value = row["parameters"].get(name)
    if name in row["differ"]:
        return (" to " if numeric(value) else ", ").join(map(short, value))
    return _short(value)


def _one(value: Any) -> str:
    return short(value)


def _short(value: Any) -> str:
    return "-" if value is None else short(value)


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if interval is None else f"{value:.4g} [{interval[0]:.3g}, {interval[1]:.3g}]"
