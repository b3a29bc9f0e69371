"""`status`, `best`, `export`, `stop`: commands on a started sweep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from orchestrator import terminal
from orchestrator.cli import remote
from orchestrator.cli.app import ROOT, Address, Json, Root, Sweep, app, data, emit, show, show_stamps, talk
from orchestrator.definition.counts import columns
from orchestrator.definition.kinds import short

if TYPE_CHECKING:
    from orchestrator.results import Best, Front


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
    now = results.status(found)
    extensions.look(found, "status")
    if as_json:
        emit(now.document())
        return
    table = Table(title=f"{now.sweep_id}: {now.state}")
    shown = columns(now.arms.values())
    for name in ("arm", *(["studies"] if now.studies else []), *shown):
        table.add_column(name, justify="left" if name == "arm" else "right")
    for arm, counts in now.arms.items():
        table.add_row(arm, *([str(now.studies[arm])] if now.studies else []), *counts.cells(shown))
    counted = " counted" if now.script else ""
    table.caption = f"{now.spent}{counted}, {now.seconds:.0f} s" if now.spent else f"{now.seconds:.0f} s"
    show(table)
    show_stamps(now.exploratory)
    if now.total.waiting:
        terminal.say(data, f"waiting: {now.waiting_reason}")
    for line in noticed.reused_words(now.reused):
        terminal.say(data, line)
    for arm, names in now.changed.items():
        said = f"{arm} changed {', '.join(names)}: no other trial saw it, and a resumed trial starts without it"
        data.print(said, highlight=False, markup=False)
    for trial, error in now.errors.items():
        data.print(f"\n{trial} failed:\n{error}", highlight=False, markup=False)
        if trial in now.last_lines:
            data.print(now.last_lines[trial], highlight=False, markup=False)


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
            emit(front.document())
            return
        show(_front(front))
        show_stamps(front.exploratory)
        return
    chosen = results.best(found)
    if as_json:
        emit(chosen.document())
        return
    for said in results.infeasible(found):
        data.print(said, highlight=False, markup=False)
    if not chosen.arms:
        see = found.command("status", found.sweep_id)
        terminal.say(talk, f"no trial of {found.sweep_id} has a value yet; see: {see}")
    table = Table(title=f"{chosen.sweep_id}: {chosen.metric}, {chosen.goal}")
    if any(one.studies for one in chosen.arms.values()):
        return _best_of_studies(table, chosen)
    for name in ("arm", "value", "seeds", "stage", "parameters", "trial"):
        table.add_column(name, justify="right" if name in ("value", "seeds") else "left", no_wrap=name != "parameters")
    for arm, one in chosen.arms.items():
        words = _settings(describe(one.parameters, one.lineage))
        table.add_row(arm, _value(one.value), str(one.seeds), one.stage, words, one.trial_id)
    show(table)
    show_stamps(chosen.exploratory)


def _value(value: float | None) -> str:
    if value is None:
        return "diverged"
    return f"{value:.4f}" if 1e-2 <= abs(value) < 1e3 else f"{value:.4g}"


def _settings(parameters: Mapping[str, Any]) -> str:
    """`lr=0.0877, rotation=output`: fractions with three digits; --json has them all."""
    return ", ".join(f"{name}={short(value)}" for name, value in parameters.items())


def _front(front: Front) -> Table:
    """The configurations that no other of their arm beats in every objective, by the first one."""
    goals = front.objectives
    title = ", ".join(f"{name} ({goal})" for name, goal in goals.items())
    table = Table(title=f"{front.sweep_id}: per arm, not beaten in {title}")
    several = any(row.study is not None for rows in front.arms.values() for row in rows)
    for name in ("arm", *(["study"] if several else []), "configuration", *goals, "parameters"):
        words = name in ("arm", "parameters")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "parameters")
    first, goal = next(iter(goals.items()))
    for arm, rows in front.arms.items():
        for row in sorted(rows, key=lambda row: goal.loss(row.values[first])):
            study = [str(row.study)] if several else []
            values = (f"{row.values[name]:.4g}" for name in goals)
            table.add_row(arm, *study, str(row.configuration), *values, _settings(row.parameters))
    table.caption = "means over the tune seeds, which chose them: optimistic"
    return table


def _best_of_studies(table: Table, chosen: Best) -> None:
    """Each arm's mean over its studies, then what they chose."""
    from orchestrator.results.chosen import chosen_words

    for name in ("arm", "mean", "studies", "seeds per study", "stage"):
        table.add_column(name, justify="left" if name in ("arm", "stage") else "right")
    for arm, one in chosen.arms.items():
        seeds = sorted({study.seeds for study in one.counted})
        words = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        table.add_row(arm, _value(one.value), str(len(one.counted)), words, one.stage)
    show(table)
    for arm, one in chosen.arms.items():
        data.print(f"{arm}: {chosen_words(one)}", highlight=False, markup=False)
    show_stamps(chosen.exploratory)


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
