"""`watch`: a running sweep in another terminal, from its folder alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator import terminal
from orchestrator.cli.app import ROOT, Exit, Json, Root, Sweep, app, data, emit, say, show_stamps
from orchestrator.definition.states import SweepState
from orchestrator.storage.errors import NotFound

if TYPE_CHECKING:
    from orchestrator.storage.folder import SweepFolder

LOOK_S, PLAIN_S, SHARE = 1.0, 10.0, 0.2
"""Seconds between updates on a terminal, and between lines elsewhere; share of time that updates may take."""
MOST = 12
"""Number of running trials shown."""
CODES = {
    SweepState.BUDGET: Exit.BUDGET,
    SweepState.FAILED: Exit.TRIALS_FAILED,
    SweepState.STOPPED: Exit.INTERRUPTED,
}
"""Exit codes as for `run`; 0 for a sweep that is done."""


@app.command()
def watch(sweep: Sweep = "@last", root: Root = ROOT, as_json: Json = False) -> None:
    """Show a running sweep live, from any terminal that sees its folder, until it ends; Ctrl-C only stops watching.

    Exit codes are those of run. With --json: wait, then print how it ended.

    Example: geosweep watch @last
    """
    from orchestrator.protocol import extensions
    from orchestrator.storage import folder

    found = folder.find(root, sweep)
    shown = snapshot(found)
    try:
        if as_json or not data.is_terminal:
            shown = _lines(found, shown, quiet=as_json)
        else:
            with Live(_fitted(shown), console=data, auto_refresh=False) as live:
                while shown["state"] == SweepState.RUNNING:
                    shown = _next(found, shown, LOOK_S)
                    live.update(_fitted(shown), refresh=True)
    except KeyboardInterrupt:
        say(f"{found.sweep_id} keeps running; to drain it: {found.command('stop', found.sweep_id)}")
        return
    extensions.look(found, "watch")
    if as_json:
        emit(shown)
    elif not data.is_terminal:
        show_stamps(shown["exploratory"])
    if shown["state"] != SweepState.DONE:
        say(f"{found.sweep_id} is {shown['state']}: {shown['waiting_reason']}")
    if (code := CODES.get(SweepState(shown["state"]))) is not None:
        raise typer.Exit(int(code))


def _fitted(shown: Mapping[str, Any]) -> Group:
    """The display, as wide as the terminal is now."""
    parts = table(shown).renderables
    each = (terminal.fitted(one, data.width) if isinstance(one, Table) else [one] for one in parts)
    return Group(*(piece for pieces in each for piece in pieces))


def _lines(found: SweepFolder, shown: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Occasional lines, and one at the end."""
    while True:
        if not quiet:
            data.print(line(shown), highlight=False, markup=False)
        if shown["state"] != SweepState.RUNNING:
            return shown
        until = time.monotonic() + PLAIN_S
        while shown["state"] == SweepState.RUNNING and time.monotonic() < until:
            shown = _next(found, shown, LOOK_S)


def _next(found: SweepFolder, shown: Mapping[str, Any], every_s: float) -> dict[str, Any]:
    time.sleep(max(every_s, shown["looked_s"] / SHARE))
    found.level()
    if not (found.path / "resolved.json").exists():
        raise NotFound(f"sweep {found.sweep_id} was deleted")
    return snapshot(found)


def snapshot(found: SweepFolder) -> dict[str, Any]:
    """The `watch` document: `status`, each arm's best, and `trials`, those that are running."""
    from orchestrator import results

    began = time.monotonic()
    status, best = results.status(found), results.best(found)
    running = _running(found) if status["state"] == SweepState.RUNNING else []
    return {
        **status,
        "schema": "geosweep/watch/1",
        "metric": best["metric"],
        "best": {arm: {k: row[k] for k in ("value", "stage")} for arm, row in best["arms"].items()},
        "trials": running,
        "looked_s": round(time.monotonic() - began, 3),
    }


def _running(found: SweepFolder) -> list[dict[str, Any]]:
    """Trials that have started but not ended, most recent measurement first."""
    from orchestrator.storage.metric_log import MetricLog
    from orchestrator.trial.record import read_job

    rows: list[dict[str, Any]] = []
    for path in (found.path / "trials").glob("*/trial.json"):
        if path.with_name("result.json").exists() or (job := read_job(path.parent)) is None:
            continue
        points = MetricLog(path.with_name("metrics.jsonl")).points()
        newest = points[-1] if points else None
        rows.append(
            {
                "trial_id": job.trial_id,
                "grad_evals": newest.step if newest else 0,
                "budget": job.budget,
                "value": newest.metrics.get(job.metric) if newest else None,
                "measured_at": newest.time / 1000 if newest else None,
            }
        )
    return sorted(rows, key=lambda row: (-(row["measured_at"] or 0), row["trial_id"]))


def table(shown: Mapping[str, Any]) -> Group:
    """The display on a terminal."""
    from orchestrator import results
    from orchestrator.scheduling.waiting import clock
    from orchestrator.trial import noticed

    studies = shown.get("studies", {})
    states = results.counts_to_show(shown["arms"].values())
    arms = Table(title=f"{shown['sweep_id']}: {shown['state']}", caption_justify="left")
    arms.caption = f"{_spent(shown)}{clock(shown['seconds'])} spent"
    for name in ("arm", *(["studies"] if studies else []), *states, f"best {shown['metric']}"):
        arms.add_column(name, justify="left" if name == "arm" else "right")
    for arm, counts in shown["arms"].items():
        done = [f"{studies[arm]['confirmed']}/{studies[arm]['planned']}"] if studies else []
        arms.add_row(arm, *done, *(str(counts[k]) for k in states), _best(shown, arm))
    parts: list[Any] = [arms]
    if shown["trials"]:
        parts.append(_trials(shown))
    if any(counts["waiting"] for counts in shown["arms"].values()):
        parts.append(Text(f"waiting: {shown['waiting_reason']}", style="dim"))
    parts += [Text(f"{trial} failed: {_last(error)}", style="red") for trial, error in shown["errors"].items()]
    parts += [Text(line) for line in noticed.reused_words(shown.get("reused", {}))]
    parts += [Text(f"exploratory: {stamp}", style="yellow") for stamp in shown["exploratory"]]
    return Group(*parts)


def _trials(shown: Mapping[str, Any]) -> Table:
    found = Table(title="running trials")
    for name in ("trial", "gradient evaluations", shown["metric"], "measured"):
        found.add_column(name, justify="left" if name == "trial" else "right")
    for row in shown["trials"][:MOST]:
        value = "-" if row["value"] is None else f"{row['value']:.4g}"
        ago = "-" if row["measured_at"] is None else f"{max(0.0, time.time() - row['measured_at']):.0f} s ago"
        found.add_row(row["trial_id"], f"{row['grad_evals']:,.0f}/{row['budget']:,.0f}", value, ago)
    if more := len(shown["trials"]) - MOST:
        found.caption = f"and {more} more" if more > 0 else ""
    return found


def line(shown: Mapping[str, Any]) -> str:
    """The same in one line."""
    arms = []
    for arm, counts in shown["arms"].items():
        astray = "".join(f", {counts[k]} {k}" for k in ("pruned", "diverged", "failed") if counts[k])
        astray += f", {again} reused" if (again := shown.get("reused", {}).get(arm)) else ""
        best = f", best {_best(shown, arm)}" if arm in shown["best"] else ""
        arms.append(f"{arm} {counts['done']}/{sum(counts.values())}{astray}, {counts['running']} running{best}")
    spent = _spent(shown).removesuffix(", ")
    return f"{shown['sweep_id']} {shown['state']}: {'; '.join([*arms, *([spent] if spent else [])])}"


def _spent(shown: Mapping[str, Any]) -> str:
    """Empty for a script or imported runs without counted gradient evaluations."""
    counted = "imported" not in shown and (shown["grad_evals"] or "script" not in shown)
    return f"{shown['grad_evals']:,.0f} gradient evaluations, " if counted else ""


def _best(shown: Mapping[str, Any], arm: str) -> str:
    best = shown["best"].get(arm)
    if best is None:
        return ""
    value = "diverged" if best["value"] is None else f"{best['value']:.4g}"
    return f"{value} ({best['stage']})"


def _last(error: str) -> str:
    return (error.strip().splitlines() or [""])[-1]
