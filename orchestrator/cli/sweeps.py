"""`status`, `best`, `export`, `stop`: commands on a started sweep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from orchestrator import terminal
from orchestrator.cli import remote
from orchestrator.cli.app import ROOT, Address, Json, Root, Sweep, app, data, emit, show, show_stamps, talk
from orchestrator.definition.kinds import short


@app.command()
def status(sweep: Sweep = "@last", root: Root = ROOT, address: Address = "", as_json: Json = False) -> None:
    """Show each arm's trials by state, why trials are waiting, and the tracebacks of failed ones.

    Example: geosweep status @last
    """
    from orchestrator import results
    from orchestrator.protocol import extensions
    from orchestrator.storage import folder
    from orchestrator.trial import noticed

    if address:
        return remote.status(address, sweep, as_json)
    found = folder.find(root, sweep)
    document = results.status(found)
    extensions.look(found, "status")
    if as_json:
        emit(document)
        return
    table = Table(title=f"{document['sweep_id']}: {document['state']}")
    studies = document.get("studies", {})
    shown = results.counts_to_show(document["arms"].values())
    for name in ("arm", *(["studies"] if studies else []), *shown):
        table.add_column(name, justify="left" if name == "arm" else "right")
    for arm, counts in document["arms"].items():
        done = [f"{studies[arm]['confirmed']}/{studies[arm]['planned']}"] if studies else []
        table.add_row(arm, *done, *(str(counts[k]) for k in shown))
    counted = " counted" if "script" in document else ""
    unknown = "imported" in document or ("script" in document and not document["grad_evals"])
    spent = "" if unknown else f"{document['grad_evals']:,.0f} gradient evaluations{counted}, "
    table.caption = f"{spent}{document['seconds']:.0f} s"
    show(table)
    show_stamps(document["exploratory"])
    if any(counts["waiting"] for counts in document["arms"].values()):
        terminal.say(data, f"waiting: {document['waiting_reason']}")
    for line in noticed.reused_words(document.get("reused", {})):
        terminal.say(data, line)
    for arm, names in document.get("changed", {}).items():
        said = f"{arm} changed {', '.join(names)}: no other trial saw it, and a resumed trial starts without it"
        data.print(said, highlight=False, markup=False)
    for trial, error in document["errors"].items():
        data.print(f"\n{trial} failed:\n{error}", highlight=False, markup=False)
        if trial in document["last_lines"]:
            data.print(document["last_lines"][trial], highlight=False, markup=False)


@app.command()
def best(
    sweep: Sweep = "@last",
    root: Root = ROOT,
    pareto: Annotated[
        bool,
        typer.Option(help="Each arm's Pareto front: what no other of its configurations beats in every objective."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show each arm's best configuration (its mean over confirm seeds, once there are any).

    Example: geosweep best @last --json
    """
    from orchestrator import results
    from orchestrator.protocol import extensions
    from orchestrator.storage import folder
    from orchestrator.trial.lineage import describe

    found = folder.find(root, sweep)
    extensions.look(found, "best")
    if pareto:
        front = results.pareto(found)
        if as_json:
            emit(front)
            return
        show(_front(front))
        show_stamps(front["exploratory"])
        return
    document = results.best(found)
    if as_json:
        emit(document)
        return
    for said in results.infeasible(found):
        data.print(said, highlight=False, markup=False)
    if not document["arms"]:
        see = found.command("status", found.sweep_id)
        terminal.say(talk, f"no trial of {found.sweep_id} has a value yet; see: {see}")
    table = Table(title=f"{document['sweep_id']}: {document['metric']}, {document['goal']}")
    if any("studies" in row for row in document["arms"].values()):
        return _best_of_studies(table, document)
    for name in ("arm", "value", "seeds", "stage", "parameters", "trial"):
        table.add_column(name, justify="right" if name in ("value", "seeds") else "left", no_wrap=name != "parameters")
    for arm, row in document["arms"].items():
        words = _settings(describe(row["parameters"], row.get("lineage", ())))
        table.add_row(arm, _value(row["value"]), str(row["seeds"]), row["stage"], words, row["trial_id"])
    show(table)
    show_stamps(document["exploratory"])


def _value(value: float | None) -> str:
    if value is None:
        return "diverged"
    return f"{value:.4f}" if 1e-2 <= abs(value) < 1e3 else f"{value:.4g}"


def _settings(parameters: Mapping[str, Any]) -> str:
    """`lr=0.0877, rotation=output`: fractions with three digits; --json has them all."""
    return ", ".join(f"{name}={short(value)}" for name, value in parameters.items())


def _front(document: Mapping[str, Any]) -> Table:
    """The configurations that no other of their arm beats in every objective, by the first one."""
    goals = document["objectives"]
    title = ", ".join(f"{name} ({goal})" for name, goal in goals.items())
    table = Table(title=f"{document['sweep_id']}: per arm, not beaten in {title}")
    several = any("study" in row for rows in document["arms"].values() for row in rows)
    for name in ("arm", *(["study"] if several else []), "configuration", *goals, "parameters"):
        words = name in ("arm", "parameters")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "parameters")
    first, goal = next(iter(goals.items()))
    for arm, rows in document["arms"].items():
        for row in sorted(rows, key=lambda row: goal.loss(row["values"][first])):
            study = [str(row["study"])] if several else []
            values = (f"{row['values'][name]:.4g}" for name in goals)
            table.add_row(arm, *study, str(row["configuration"]), *values, _settings(row["parameters"]))
    table.caption = "means over the tune seeds, which chose them: optimistic"
    return table


def _best_of_studies(table: Table, document: Mapping[str, Any]) -> None:
    """Each arm's mean over its studies, then what they chose."""
    from orchestrator.trial.chosen import chosen_words

    for name in ("arm", "mean", "studies", "seeds per study", "stage"):
        table.add_column(name, justify="left" if name in ("arm", "stage") else "right")
    for arm, row in document["arms"].items():
        counted = [one for one in row["studies"] if one["stage"] == row["stage"]]
        seeds = sorted({one["seeds"] for one in counted})
        words = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        table.add_row(arm, _value(row["value"]), str(len(counted)), words, row["stage"])
    show(table)
    for arm, row in document["arms"].items():
        data.print(f"{arm}: {chosen_words(row)}", highlight=False, markup=False)
    show_stamps(document["exploratory"])


@app.command()
def export(
    sweep: Sweep = "@last",
    to: Annotated[Path, typer.Option("--output", "-o", help="Folder for trials.parquet and metrics.parquet.")] = Path(
        "out"
    ),
    root: Root = ROOT,
    as_json: Json = False,
) -> None:
    """Write trials.parquet and metrics.parquet.

    Example: geosweep export @last -o out
    """
    from orchestrator import parquet
    from orchestrator.protocol import extensions, seal
    from orchestrator.storage import folder

    found = folder.find(root, sweep)
    extensions.look(found, "export")
    written = [str(p) for p in parquet.export(found, to)]
    stamps = seal.stamps(found)
    if as_json:
        emit({"schema": "geosweep/export/1", "sweep_id": found.sweep_id, "files": written, "exploratory": stamps})
    else:
        for path in written:
            data.print(path, highlight=False)
        show_stamps(stamps)


@app.command()
def stop(sweep: Sweep = "@last", root: Root = ROOT, address: Address = "", as_json: Json = False) -> None:
    """Drain a running sweep: its trials write a checkpoint, the driver exits; `run` continues it.

    Example: geosweep stop @last
    """
    from orchestrator.storage import folder

    if address:
        return remote.stop(address, sweep, as_json)
    found = folder.find(root, sweep)
    held = found.is_held()
    if held:
        found.ask_to_stop()
    if as_json:
        emit({"schema": "geosweep/stop/1", "sweep_id": found.sweep_id, "draining": held})
    else:
        talk.print(f"{found.sweep_id} {'is draining' if held else 'is not running'}", highlight=False)
