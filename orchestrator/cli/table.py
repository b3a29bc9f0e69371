"""`table`: one row for each value of a hyperparameter."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import typer
from rich.table import Table

from orchestrator.cli.app import ROOT, Exit, Json, Root, Sweep, app, emit, fail, show, show_stamps
from orchestrator.definition.states import Goal, Stage


@app.command()
def table(
    sweep: Sweep = "@last",
    by: Annotated[str, typer.Option(help="A hyperparameter, for instance rotation.")] = ...,  # type: ignore[assignment]
    baseline: Annotated[str, typer.Option(help="A value of it; adds differences and slowdowns against it.")] = "",
    columns: Annotated[
        str, typer.Option(help="Further final metrics, commas between; all geometry/... when left out.")
    ] = "",
    metric: Annotated[str, typer.Option(help="Another metric than the one that the sweep reports.")] = "",
    root: Root = ROOT,
    as_json: Json = False,
) -> None:
    """Show the best configuration for each value of a hyperparameter: metric, slowdown, geometry.

    Example: geosweep table @last --by rotation --baseline identity
    """
    from orchestrator import results
    from orchestrator.compare import by_value as tables
    from orchestrator.compare.evidence import twin
    from orchestrator.protocol import extensions, seal
    from orchestrator.statistics.pairing import Refused
    from orchestrator.storage import folder
    from orchestrator.storage.metric_log import MetricLog
    from orchestrator.trial.counted import counted

    found = folder.find(root, sweep)
    extensions.look(found, "table")
    reported, _ = results.reported(found, metric)
    tuned = results.tuned(found)

    @cache
    def curve_of(trial: str) -> list[tuple[float, float]]:
        points = MetricLog(found.trial(trial) / "metrics.jsonl").points()
        return [(p["step"], p["metrics"][tables.CURVE]) for p in points if tables.CURVE in p["metrics"]]

    question = tables.Question(
        by=by,
        metric=reported,
        tuned=tuned["name"],
        goal=Goal(tuned["goal"]),
        baseline=baseline,
        columns=tuple(c.strip() for c in columns.split(",") if c.strip()),
    )
    try:
        copy = twin(found)
        trials = [t for t in counted(results.ended_trials(found)) if t.job.arm != copy]
        document = tables.table(trials, question, curve_of)
    except Refused as reason:
        fail(f"no table: {reason}", Exit.NOT_FOUND)
    document = {"schema": document.pop("schema"), "sweep_id": found.sweep_id, **document}
    document["exploratory"] = seal.stamps(found)
    if as_json:
        emit(document)
    else:
        show(_rich(document))
        show_stamps(document["exploratory"])


def _rich(document: dict[str, Any]) -> Table:
    """The document for people."""
    rows, varied, columns = document["rows"], document["varied"], document["columns"]
    several = len({row["optimizer"] for row in rows}) > 1
    shown = Table(title=f"{document['sweep_id']}: {document['metric']} by {document['by']}", caption=_caption(document))
    against = bool(document["baseline"])
    units = "studies" if document["unit"] == "study" else "n"
    heads = [*(["optimizer"] if several else []), document["by"], *varied, "tried", "stage", units, document["metric"]]
    heads += ["difference", "ratio", "slowdown"] if against else []
    for name in [*heads, *(c.removeprefix("geometry/") for c in columns)]:
        shown.add_column(name, justify="left" if name in ("optimizer", document["by"]) else "right", no_wrap=True)
    for row in rows:
        cells = [row["optimizer"]] if several else []
        cells += [str(row["value"]), *(_short(row["parameters"].get(name)) for name in varied)]
        n = f"{row['n']}" + (f" ({row['diverged']} diverged)" if row["diverged"] else "")
        cells += [str(row["configurations"]), row["stage"], n, _with_interval(row["mean"], row["interval"])]
        if against:
            b = row["against_baseline"]
            cells += [
                _with_interval(b["difference"], b["interval"]) if b else "-",
                _short(b["ratio"]) if b else "-",
                f"{b['slowdown']:+.0%}" if b and b["slowdown"] is not None else "-",
            ]
        shown.add_row(*cells, *(_short(row["columns"][name]) for name in columns))
    return shown


def _caption(document: dict[str, Any]) -> str:
    each = "of each study " if document["unit"] == "study" else ""
    words = [f"each row: the configuration {each}with the best {document['tuned']} on the tune seeds; 95 % t intervals"]
    if any(row["stage"] is Stage.TUNE for row in document["rows"]):
        words.append("rows of the tune stage were chosen for the number they show: too good")
    if len({row["configurations"] for row in document["rows"]}) > 1:
        words.append("values were tried unequally often (tried): more tries, better best")
    return "; ".join(words)


def _numbers(values: list[Any]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return (" to " if _numbers(value) else ", ").join(map(_short, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if interval is None else f"{value:.4g} [{interval[0]:.3g}, {interval[1]:.3g}]"
