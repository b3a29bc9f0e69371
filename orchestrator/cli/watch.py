"""`watch`: a running sweep in another terminal, from its folder alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator import terminal
from orchestrator.cli.app import ROOT, Exit, Json, Root, Sweep, app, data, emit, say, show_stamps
from orchestrator.definition.counts import columns
from orchestrator.definition.states import SweepState
from orchestrator.storage.errors import NotFound

if TYPE_CHECKING:
    from orchestrator.results import Best, Status
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
                while shown.runs:
                    shown = _next(found, shown, LOOK_S)
                    live.update(_fitted(shown), refresh=True)
    except KeyboardInterrupt:
        say(f"{found.sweep_id} keeps running; to drain it: {found.command('stop', found.sweep_id)}")
        return
    extensions.look(found, "watch")
    if as_json:
        emit(shown.document())
    elif not data.is_terminal:
        show_stamps(shown.status.exploratory)
    if shown.status.state is not SweepState.DONE:
        say(f"{found.sweep_id} is {shown.status.state}: {shown.status.waiting_reason}")
    if (code := CODES.get(shown.status.state)) is not None:
        raise typer.Exit(int(code))


def _fitted(shown: Shown) -> Group:
    """The display, as wide as the terminal is now."""
    parts = table(shown).renderables
    each = (terminal.fitted(one, data.width) if isinstance(one, Table) else [one] for one in parts)
    return Group(*(piece for pieces in each for piece in pieces))


def _lines(found: SweepFolder, shown: Shown, *, quiet: bool) -> Shown:
    """Occasional lines, and one at the end."""
    while True:
        if not quiet:
            data.print(line(shown), highlight=False, markup=False)
        if not shown.runs:
            return shown
        until = time.monotonic() + PLAIN_S
        while shown.runs and time.monotonic() < until:
            shown = _next(found, shown, LOOK_S)


def _next(found: SweepFolder, shown: Shown, every_s: float) -> Shown:
    time.sleep(max(every_s, shown.looked_s / SHARE))
    found.level()
    if not (found.path / "resolved.json").exists():
        raise NotFound(f"sweep {found.sweep_id} was deleted")
    return snapshot(found)


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """A trial that has begun and not ended."""

    trial_id: str
    grad_evals: float
    """At the newest measurement; 0 before the first."""
    budget: float
    value: float | None
    """The tuned metric by then; None: not measured."""
    measured_at: float | None
    """Seconds since the epoch; None: never."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is shown of a sweep."""

    status: Status
    best: Best
    trials: Sequence[RunningTrial]
    """The most recently measured first."""
    looked_s: float
    """Seconds that it took to look."""

    @property
    def runs(self) -> bool:
        """Whether the sweep does."""
        return self.status.state is SweepState.RUNNING

    def document(self) -> dict[str, Any]:
        """As JSON: `status`, each arm's best, and the running trials."""
        return {
            **self.status.document(),
            "schema": "geosweep/watch/1",
            "metric": self.best.metric,
            "best": {arm: {"value": one.value, "stage": one.stage} for arm, one in self.best.arms.items()},
            "trials": [asdict(one) for one in self.trials],
            "looked_s": self.looked_s,
        }


def snapshot(found: SweepFolder) -> Shown:
    """The sweep as it is now."""
    from orchestrator import results

    began = time.monotonic()
    status, best = results.status(found), results.best(found)
    trials = _running(found) if status.state is SweepState.RUNNING else []
    return Shown(status=status, best=best, trials=trials, looked_s=round(time.monotonic() - began, 3))


def _running(found: SweepFolder) -> list[RunningTrial]:
    """Trials that have started but not ended, most recent measurement first."""
    from orchestrator.storage.metric_log import MetricLog
    from orchestrator.trial.record import read_job

    rows: list[RunningTrial] = []
    for path in (found.path / "trials").glob("*/trial.json"):
        if path.with_name("result.json").exists() or (job := read_job(path.parent)) is None:
            continue
        points = MetricLog(path.with_name("metrics.jsonl")).points()
        newest = points[-1] if points else None
        rows.append(
            RunningTrial(
                trial_id=job.trial_id,
                grad_evals=newest.step if newest else 0,
                budget=job.budget,
                value=newest.metrics.get(job.metric) if newest else None,
                measured_at=newest.time / 1000 if newest else None,
            )
        )
    return sorted(rows, key=lambda row: (-(row.measured_at or 0), row.trial_id))


def table(shown: Shown) -> Group:
    """The display on a terminal."""
    from orchestrator.scheduling.waiting import clock
    from orchestrator.trial import noticed

    status = shown.status
    states = columns(status.arms.values())
    arms = Table(title=f"{status.sweep_id}: {status.state}", caption_justify="left")
    arms.caption = f"{', '.join(filter(None, [status.spent, clock(status.seconds)]))} spent"
    for name in ("arm", *(["studies"] if status.studies else []), *states, f"best {shown.best.metric}"):
        arms.add_column(name, justify="left" if name == "arm" else "right")
    for arm, counts in status.arms.items():
        done = [str(status.studies[arm])] if status.studies else []
        arms.add_row(arm, *done, *counts.cells(states), _best(shown, arm))
    parts: list[Any] = [arms]
    if shown.trials:
        parts.append(_trials(shown))
    if status.total.waiting:
        parts.append(Text(f"waiting: {status.waiting_reason}", style="dim"))
    parts += [Text(f"{trial} failed: {_last(error)}", style="red") for trial, error in status.errors.items()]
    parts += [Text(line) for line in noticed.reused_words(status.reused)]
    parts += [Text(f"exploratory: {stamp}", style="yellow") for stamp in status.exploratory]
    return Group(*parts)


def _trials(shown: Shown) -> Table:
    found = Table(title="running trials")
    for name in ("trial", "gradient evaluations", shown.best.metric, "measured"):
        found.add_column(name, justify="left" if name == "trial" else "right")
    for row in shown.trials[:MOST]:
        value = "-" if row.value is None else f"{row.value:.4g}"
        ago = "-" if row.measured_at is None else f"{max(0.0, time.time() - row.measured_at):.0f} s ago"
        found.add_row(row.trial_id, f"{row.grad_evals:,.0f}/{row.budget:,.0f}", value, ago)
    if more := len(shown.trials) - MOST:
        found.caption = f"and {more} more" if more > 0 else ""
    return found


def line(shown: Shown) -> str:
    """The same in one line."""
    arms, status = [], shown.status
    for arm, counts in status.arms.items():
        astray = "".join(f", {words}" for words in counts.astray)
        astray += f", {again} reused" if (again := status.reused.get(arm)) else ""
        best = f", best {_best(shown, arm)}" if arm in shown.best.arms else ""
        arms.append(f"{arm} {counts.done}/{counts.planned}{astray}, {counts.running} running{best}")
    return f"{status.sweep_id} {status.state}: {'; '.join(filter(None, [*arms, status.spent]))}"


def _best(shown: Shown, arm: str) -> str:
    from orchestrator import results

    best = shown.best.arms.get(arm)
    return "" if best is None else f"{results.value_words(best.value)} ({best.stage})"


def _last(error: str) -> str:
    return (error.strip().splitlines() or [""])[-1]
