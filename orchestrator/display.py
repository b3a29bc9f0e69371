"""Output of `geosweep run`: a live table on a terminal, occasional plain lines elsewhere, and a final table of arms."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator import results, terminal
from orchestrator.definition import currency, program
from orchestrator.definition.counts import Counts, columns, total
from orchestrator.definition.model import Spec, definition
from orchestrator.definition.states import Goal, Stage, State
from orchestrator.results.chosen import ArmChoice, chosen_words
from orchestrator.scheduling.conductor import SweepConductor
from orchestrator.scheduling.waiting import clock, without
from orchestrator.statistics.intervals import bounds_of, cut_words, interval_text, summarize
from orchestrator.storage import calibration
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.periodic import periodic
from orchestrator.trial import noticed
from orchestrator.trial.counted import counted
from orchestrator.trial.job import Job, Report, Result
from orchestrator.trial.record import TrialRecord

LIVE_EVERY_S, PLAIN_EVERY_S = 0.5, 10.0
DRAINING = "draining: running trials write a checkpoint; Ctrl-C again ends at once, back to their last one"


def _remaining(conductor: SweepConductor) -> float | None:
    """Seconds left at the current pace; None until there is one."""
    begun, spent = conductor.pace_from, conductor.grad_evals - conductor.spent_before
    if begun is None or not spent:
        return None
    return _to_spend(conductor) * (time.monotonic() - begun) / spent


def _to_spend(conductor: SweepConductor) -> float:
    return sum(arm.to_spend() for arm in conductor.arms.values())


def summary_line(conductor: SweepConductor) -> str:
    """Spent and remaining budget, time left, problems."""
    left = _remaining(conductor)
    words = [
        f"{conductor.grad_evals:,.0f} of {_total(conductor)} {_counted(conductor.spec)}",
        f"{clock(conductor.seconds)} spent",
        without(conductor.waited) or (f"about {clock(left)} left" if left is not None else "starting workers"),
    ]
    if conductor.spec.budget.wall_clock:
        words.append(f"wall clock limit {clock(conductor.spec.budget.wall_clock)}")
    if is_draining(conductor):
        words.append(DRAINING)
    return ", ".join(words)


def is_draining(conductor: SweepConductor) -> bool:
    """Whether no further trial starts and running ones are asked for a checkpoint."""
    return bool(conductor.stopped_by) or conductor.folder.stop_file.exists()


def _total(conductor: SweepConductor) -> str:
    """What all trials may spend; unchanged when trials end early or take fewer steps than allowed."""
    most = max(conductor.grad_evals, sum(arm.at_most() for arm in conductor.arms.values()))
    less = conductor.grad_evals + _to_spend(conductor) < most - 0.5
    return f"{'at most ' if less else ''}{most:,.0f}"


def _counted(spec: Spec) -> str:
    """The unit in which trials are counted; for a script, the unit of its budget."""
    return currency.WORDS[spec.budget.unit if spec.task.is_program else "grad_evals"]


def live_table(conductor: SweepConductor) -> Table:
    """Arms with finished studies, trials by state, and the best value so far."""
    given = " ".join(conductor.spec.overrides)
    title = f"{conductor.folder.sweep_id}{f' with {given}' if given else ''}"
    table = Table(title=title, caption=summary_line(conductor), caption_justify="left")
    rows = progress(conductor)
    shown, several = columns(row.counts for row in rows.values()), conductor.spec.seeds.studies > 1
    table.add_column("arm")
    for name in (*(["studies"] if several else []), *shown, f"best {conductor.spec.metric.name} (tune)"):
        table.add_column(name, justify="right")
    for name, row in rows.items():
        studies = [f"{row.finished}/{row.studies}"] if several else []
        table.add_row(name, *studies, *row.counts.cells(shown), row.best_text())
    return table


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of all studies of an arm."""

    counts: Counts
    planned: int
    studies: int
    """Without those that a race skipped."""
    finished: int
    best: float | None

    def best_text(self) -> str:
        """The best value of the tuned metric with four digits."""
        return "" if self.best is None else f"{self.best:.4g}"


def progress(conductor: SweepConductor) -> dict[str, Progress]:
    """Arm -> progress."""
    return {name: _progress(conductor, name) for name in conductor.spec.arms}


def _progress(conductor: SweepConductor, name: str) -> Progress:
    studies = [arm for arm in conductor.arms.values() if arm.spec.name == name and arm.planned]
    each = [arm.counts() for arm in studies]
    counts = total(each)
    best = [arm.best for arm in studies if arm.best is not None]
    return Progress(
        counts=counts,
        planned=sum(arm.planned for arm in studies),
        studies=len(studies),
        finished=sum(not found.unended for found in each),
        best=conductor.spec.metric.goal.best(best) if best and (counts.done or counts.pruned) else None,
    )


def plain_line(conductor: SweepConductor) -> str:
    """The same as one line."""
    arms = []
    for name, row in progress(conductor).items():
        trouble = "".join(f", {words}" for words in row.counts.astray)
        best = f", best {row.best_text()}" if row.best is not None else ""
        trials = f"{row.counts.done}/{row.planned}"
        done = f"{row.finished}/{row.studies} studies, {trials} trials" if conductor.spec.seeds.studies > 1 else trials
        arms.append(f"{name} {done}{trouble}{best}")
    return f"{'; '.join(arms)}; {summary_line(conductor)}"


@contextmanager
def watching(conductor: SweepConductor, console: Console) -> Iterator[None]:
    """Show progress on `console` (standard error) while the context lasts."""

    def say() -> None:
        console.print(plain_line(conductor), highlight=False, markup=False, soft_wrap=True)

    with ExitStack() as stack:
        if console.is_terminal:
            live = stack.enter_context(Live(_live(conductor, console), console=console, refresh_per_second=2))
            every_s, show = LIVE_EVERY_S, lambda: live.update(_live(conductor, console))
            stack.callback(show)
        else:
            every_s, show = LIVE_EVERY_S, _Sparse(conductor, say)
            stack.callback(say)
        stack.enter_context(periodic(every_s, show, name="display"))
        yield


def _live(conductor: SweepConductor, console: Console) -> Group:
    return Group(*terminal.fitted(live_table(conductor), console.width))


class _Sparse:
    """Prints a line every PLAIN_EVERY_S seconds, and at once when the sweep starts to drain."""

    def __init__(self, conductor: SweepConductor, say: Callable[[], None]) -> None:
        self._conductor, self._say = conductor, say
        self._said_at, self._drains = time.monotonic(), False

    def __call__(self) -> None:
        drains, now = is_draining(self._conductor), time.monotonic()
        if drains == self._drains and now - self._said_at < PLAIN_EVERY_S:
            return
        self._said_at, self._drains = now, drains
        self._say()


class Stretched:
    """Warns when checkpoints are further apart than requested, and again when the gap doubles (a
    `callbacks.Callback`).
    """

    def __init__(self, console: Console) -> None:
        self._console, self._said = console, 0.0

    def on_start(self, job: Job) -> None:
        """Nothing."""

    def on_report(self, job: Job, report: Report) -> None:
        """Compare with the requested interval."""
        if report.checkpoint_s <= max(1.2 * job.checkpoint_s, 2 * self._said):
            return
        self._said = report.checkpoint_s
        self._console.print(
            f"checkpoints of {job.trial_id} are {report.checkpoint_s:.1f} s apart, not {job.checkpoint_s:g} s: "
            "writing them may take at most a tenth of the time, and each waits for the upload of the one before",
            highlight=False,
            soft_wrap=True,
        )

    def on_end(self, job: Job, result: Result | Report) -> None:
        """Nothing."""

    def on_recover(self, job: Job, result: Result) -> None:
        """Nothing."""


def arms_table(spec: Spec, folder: SweepFolder) -> Group:
    """Mean, 95% t interval and n over the studies (with one study: over its confirm seeds), and the cost.

    Best arm first; then what each arm chose.
    """
    several = spec.seeds.studies > 1
    unit = "studies" if several else "seeds"
    task = program.declared(definition(spec), spec.report_metric)
    further = task.TABLE
    metrics = list(dict.fromkeys((spec.report_metric, spec.metric.name, *further)))
    fresh = "paired studies, fresh seeds" if several else "fresh paired seeds"
    table = Table(title=f"{folder.sweep_id}: confirm stage, {fresh}", caption=f"intervals: 95% t over the {unit}")
    table.add_column("arm", no_wrap=True)
    values = {metric: results.arm_values(folder, metric) for metric in metrics}
    metrics = [m for m in metrics if m not in further or any(values[m].values())]
    bounds = {
        m: bounds_of(m, chain.from_iterable(values[m].values()), task.METRICS[m].bounds if m in task.METRICS else None)
        for m in metrics
    }
    for metric in metrics:
        table.add_column(metric, justify="right", no_wrap=True)
    each_trial = f"{currency.WORDS[spec.budget.unit]}/trial" if spec.task.is_program else "grad evals/trial"
    for name in (unit if several else "n", each_trial, "spent in all"):
        table.add_column(name, justify="right")
    ended = counted(results.ended_trials(folder))
    goal, gone = Goal(task.METRICS[spec.report_metric].goal), noticed.diverged(ended)

    def rank(arm: str) -> float:
        found = values[metrics[0]].get(arm)
        return goal.loss(sum(found)) / len(found) if found else float("inf")

    ranked = sorted(spec.arms, key=rank)
    for arm in ranked:
        spent = [t.result.grad_evals for t in ended if t.job.arm == arm]
        each = [t.result.grad_evals for t in ended if t.job.arm == arm and t.job.stage is Stage.CONFIRM]
        cost = f"{sum(each) / len(each):,.0f}" if each else "-"
        cells = [
            "all diverged"
            if arm in gone
            else _mean(values[metric].get(arm, []), bounds[metric], short=metric not in (metrics[0], spec.metric.name))
            for metric in metrics
        ]
        table.add_row(arm, *cells, str(len(values[metrics[0]].get(arm, []))), cost, f"{sum(spent):,.0f}")
    for metric in dict.fromkeys((metrics[0], spec.metric.name)):
        sums = [summarize(found, bounds=bounds[metric]) for found in values[metric].values() if found]
        if words := cut_words(metric, bounds[metric], [(one.lo, one.hi) for one in sums]):
            table.caption = f"{table.caption}; {words}"
    if spec.budget.unit != "grad_evals":
        table.caption = "\n".join([str(table.caption), *_budget(spec, folder, ended)])
    best = results.best(folder).arms
    broke = [Text(said) for said in results.infeasible(folder)]
    return Group(table, *(_winner(arm, best.get(arm), gone.get(arm, "")) for arm in ranked), *broke)


def _budget(spec: Spec, folder: SweepFolder, ended: Sequence[TrialRecord]) -> Iterator[str]:
    """What each trial was given, and for a budget in seconds how close it came."""
    counted = program.declared(definition(spec), spec.report_metric).COUNTS
    given = currency.spoken({"unit": spec.budget.unit, "per_trial": spec.budget.per_trial}, counted)
    yield f"budget: {given}" if spec.task.is_program else given  # which a script may leave
    for arm, found in calibration.read(folder).items():
        done = [t.result for t in ended if t.job.arm == arm and t.job.stage is Stage.CONFIRM]
        seconds = [result.seconds for result in done if result.state is State.COMPLETE]
        mean = sum(seconds) / len(seconds) if seconds else None
        yield currency.took(arm, spec.budget.per_trial, found.error, mean)


def _mean(found: list[float], bounds: tuple[float, float], *, short: bool) -> str:
    """Four decimals; three significant digits for values that would show as zeros; as many as needed for large
    numbers.
    """
    if not found:
        return "no result"
    s = summarize(found, bounds=bounds)
    if short or s.lo is None or s.hi is None:
        return f"{s.mean:.4g}"
    largest = max(abs(s.lo), abs(s.hi))
    if largest >= 1e3:
        return interval_text(s.mean, s.lo, s.hi)
    style = ".4f" if largest >= 1e-2 else ".3g"
    return f"{s.mean:{style}} [{s.lo:{style}}, {s.hi:{style}}]"


def _winner(arm: str, best: ArmChoice | None, gone: str) -> Text:
    if best is None:
        return Text(f"{arm}: no configuration to choose")
    return Text(f"{arm}: {'; '.join(filter(None, (chosen_words(best), gone)))}")
