"""`plan`: what a sweep will do, what it will cost, and whether it can find what it looks for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from orchestrator.cli.app import ROOT, Exit, File, Json, Overrides, Root, app, asked_of, data, emit, fail, show, talk
from orchestrator.definition import currency

if TYPE_CHECKING:
    from orchestrator.compare.planned_power import BestUse, Power
    from orchestrator.definition.model import Spec
    from orchestrator.definition.planned import Plan
    from orchestrator.protocol.forecast import Forecast, Quantiles
    from orchestrator.protocol.probe import Taken
    from orchestrator.storage.calibration import Calibrated

BOUND_UP_TO = 0.9
"""Predicted power above this is not a lower bound: large effects are missed more often than normal noise implies."""


@app.command()
def plan(
    file: File,
    overrides: Overrides = None,
    effect: Annotated[
        float | None,
        typer.Option(min=0.0, help="Difference that matters, in units of the reported metric: shows power."),
    ] = None,
    sd: Annotated[
        float | None,
        typer.Option(min=0.0, help="Standard deviation of a unit's paired difference; default: from earlier sweeps."),
    ] = None,
    total_trials: Annotated[
        int | None,
        typer.Option(min=1, help="Total trials per arm: shows the best split into studies and seeds."),
    ] = None,
    calibrate: Annotated[
        bool | None, typer.Option(help="Train each arm for two seconds to forecast the time. Default: with --effect.")
    ] = None,
    probe: Annotated[
        bool | None,
        typer.Option(help="Take a few steps of each arm to measure the memory of a trial. Default: if there is a GPU."),
    ] = None,
    root: Root = ROOT,
    as_json: Json = False,
) -> None:
    """Show arms, steps and gradient evaluations before anything starts; with --effect also power and time.

    With --probe also the memory that a trial of each arm takes; exit code 6 if an arm does not fit.
    Example: geosweep plan sweeps/quickstart.yaml --effect 0.01 --total-trials 160
    """
    from orchestrator.compare import planned_power
    from orchestrator.definition import plan as planning

    if effect == 0 or sd == 0:
        fail("--effect and --sd must be above 0", Exit.USAGE)
    definition, found = _in_seconds(asked_of(file, overrides).load(), root, calibrate)
    timed = not definition.task.is_program and (calibrate or (calibrate is None and effect is not None))
    ahead = Ahead(
        plan=planning.plan(definition),
        calibration=found,
        power=None if effect is None else planned_power.design(definition, effect=effect, root=root, sd=sd),
        best=None
        if total_trials is None
        else planned_power.best(definition, total_trials, effect=effect, root=root, sd=sd),
        forecast=_forecast(definition) if timed else None,
        memory=_probed(definition) if _probing(definition, probe) else {},
    )
    if as_json:
        emit(ahead.document())
    else:
        show(_arms(ahead.plan))
        for line in _further(ahead):
            data.print(line, highlight=False, markup=False)
    if not all(one.fits for one in ahead.memory.values()):
        raise typer.Exit(Exit.CHECK_FAILED)


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """What is known of a sweep before it starts; None and empty: not asked."""

    plan: Plan
    calibration: Mapping[str, Calibrated]
    power: Power | None
    best: BestUse | None
    forecast: Forecast | None
    memory: Mapping[str, Taken]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        asked = {
            "calibration": {arm: asdict(one) for arm, one in self.calibration.items()},
            "power": self.power and self.power.document(),
            "best_design": self.best and self.best.document(),
            "forecast": self.forecast and asdict(self.forecast),
            "memory": {arm: asdict(one) for arm, one in self.memory.items()},
        }
        return self.plan.document() | {name: found for name, found in asked.items() if found}


def _further(ahead: Ahead) -> Iterator[str]:
    """The lines below the table."""
    plan = ahead.plan
    yield from plan.notes
    for arm, row in plan.arms.items():
        if row.groups is not None:
            each = (f"{name} {one.tensors} ({_count(one.weights, 'weight')})" for name, one in row.groups.items())
            yield f"{arm}: parameters of the model by group: {', '.join(each)}"
    each_s = plan.budget.per_trial if plan.budget else 0.0
    for arm, timed in ahead.calibration.items():
        given = f"{each_s:g} s alone on this machine, to within {timed.error:.0%}"
        yield f"{arm}: {timed.grad_evals:,.0f} gradient evaluations take {given}"
    for arm, taken in ahead.memory.items():
        yield f"{arm}: {_memory(taken)}"
    if ahead.power:
        yield from _power(ahead.power)
    if ahead.best:
        yield from _best(ahead.best)
    if ahead.forecast:
        yield _times(ahead.forecast)


def _probed(definition: Spec) -> dict[str, Taken]:
    from orchestrator.protocol.probe import probed

    return probed(definition)


def _probing(definition: Spec, asked: bool | None) -> bool:
    """Whether to take a few steps: on request, and by default where trials need a GPU and one is here."""
    import torch

    why = "a script" if definition.task.is_program else "a trial of several processes"
    if definition.task.is_program or definition.resources.processes > 1:
        if asked:
            fail(f"--probe takes steps in this process, which {why} does not allow", Exit.USAGE)
        return False
    return asked or (asked is None and definition.resources.gpu > 0 and torch.cuda.is_available())


def _memory(one: Taken) -> str:
    """How much memory an arm takes, in a sentence."""
    cut = f", batches in {one.pieces} pieces" if one.pieces else ""
    room = f" ({one.total_gib:.0f} GiB)" if one.total_gib else ""
    who = "a trial takes" if one.pack == 1 else f"a pack of {one.pack} trials takes"
    way = "give it smaller pieces (training: {accumulate: auto}), bf16, or a smaller model or batch"
    if one.pack > 1:
        way = "make the pack smaller (during a run, one that runs out of memory is halved)"
    if one.error:
        return f"does not fit into {one.device}{room}: {one.error}; {way}"
    if one.gib is None:
        return f"this system does not report how much memory a trial takes{cut}"
    if one.share is None:
        return f"{who} {one.gib:.2f} GiB of memory on top of this command's own{cut}"
    share = math.floor(one.share * 1e4) / 1e4  # rounded up, one trial fewer would fit beside it
    needs = f"{who} {one.gib:.2f} GiB of {one.device}{room}{cut}; resources: {{gpu: {share:g}}}"
    return f"{needs} suffices" if one.fits else f"{needs} is needed, more than its share; or {way}"


def _in_seconds(definition: Spec, root: Path, calibrate: bool | None) -> tuple[Spec, dict[str, Calibrated]]:
    """The sweep with its budget in seconds converted: as stored with the sweep, or else timed now and not stored."""
    from orchestrator.definition.model import sweep_id
    from orchestrator.protocol import pace
    from orchestrator.storage import calibration
    from orchestrator.storage.folder import SweepFolder

    if definition.budget.unit != "seconds" or definition.task.is_program:
        return definition, {}
    found = calibration.read(SweepFolder(root, sweep_id(definition)))
    if not found and calibrate is not False:
        talk.print(f"timing {len(definition.arms)} arms, a few seconds each", highlight=False)
        found = pace.measured(definition)
    return (pace.filled(definition, found) if found else definition), found


def _forecast(definition: Spec) -> Forecast:
    from orchestrator.protocol.forecast import calibrate, forecast
    from orchestrator.storage.processors import usable

    r = definition.resources
    slots = r.max_concurrent or max(1, usable() // r.cpu)
    talk.print(f"calibrating: {len(definition.arms)} arms, a few seconds each", highlight=False)
    return forecast(calibrate(definition), slots=slots, gpu=r.gpu)


def _arms(plan: Plan) -> Table:
    def span(found: Any) -> str:
        if found is None:
            return "unknown" if plan.script else "by calibration"
        return " to ".join(map(span, found)) if isinstance(found, list) else f"{found:,.10g}"

    starts = any(row.grad_evals_before_first_step is not None for row in plan.arms.values())
    columns = ["trials", "steps per trial", "gradient evaluations per trial"]
    columns += [*(["before its first step"] if starts else []), "gradient evaluations"]
    table = Table(title=plan.sweep_id)
    table.add_column("arm")
    for name in columns:
        table.add_column(name, justify="right")
    for arm, row in plan.arms.items():
        before = span(row.grad_evals_before_first_step or 0)
        cells = [span(row.trials), span(row.steps), span(row.grad_evals_per_trial), *([before] if starts else [])]
        table.add_row(arm, *cells, span(row.grad_evals))
    table.caption = "; ".join(_caption(plan))
    return table


def _caption(plan: Plan) -> Iterator[str]:
    rows, total = plan.arms.values(), plan.total_grad_evals
    if sizes := sorted({row.configurations_per_study for row in rows if row.configurations_per_study is not None}):
        each = f"{sizes[0]} to {sizes[-1]} configurations" if len(sizes) > 1 else _count(sizes[0], "configuration")
        yield f"{max(row.studies or 1 for row in rows)} studies per arm, {each} per study"
    if plan.budget:
        yield currency.spoken(asdict(plan.budget))
    if total is not None:
        most = any(isinstance(row.grad_evals_per_trial, list) for row in rows)
        yield f"{'at most ' if most else ''}{total:,.0f} gradient evaluations in total"


def _power(p: Power) -> list[str]:
    several, metric, unit = p.unit == "study", p.metric, p.units
    lead = f"{p.n} paired {unit}, {_count(p.comparisons, 'comparison')}"
    spread = "spread of a study's difference" if several else "spread of paired differences"
    what = "a true difference" if several else "a true difference between the two configurations found"
    needed = p.needed
    words = f"80% power needs {'more than 10,000' if needed is None else f'{needed:,}'} {unit}"
    found = []
    if p.n < p.floor:
        found.append(f"{lead}: no effect of any size can be detected; use {p.floor} {unit} or more.")
        found += [f"For {what} of {p.effect:g} {metric}, {words}."] if p.power is not None else []
    elif p.power is not None:
        chance = f"{p.power:.0%} power{_in_practice(p.power) if several else ''}"
        found.append(f"{lead}: {what} of {p.effect:g} {metric} is detected with {chance}; {words}.")
        found.append(f"Detectable at 80% power: {p.detectable:.3g}.")
    else:
        found.append(f"{lead}: {what} of {p.detectable_sd:.2f} standard deviations is detected with 80% power.")
    if p.sd is None:
        found.append(f"No earlier sweep of this task shows the {spread}; give it with --sd.")
    else:
        found.append(f"The {spread} is {p.sd:.3g}{_share(p)} ({p.sd_from}).{_assumed(p)}")
    if more := p.for_methods:
        found.append(
            "One search per arm compares configurations and says nothing about the methods; "
            f"`seeds: {{studies: {more['studies']}}}` takes {more['more_trials']:,} more trials per arm."
        )
    return found


def _best(b: BestUse) -> list[str]:
    """The best design for a total number of trials."""
    d, total = b.design, f"{b.total_trials:,} trials per arm"
    if d is None:
        pairs = _count(b.comparisons, "comparison")
        return [f"{total} are too few for a verdict on methods ({pairs}); use {b.least_trials:,} or more."]
    seeds = f"seeds: {{studies: {d.studies}, tune: {d.tune}, confirm: {d.confirm}}}"
    each = f"{_count(d.configurations, 'configuration')} per study"
    found = [f"The best use of {total}: {seeds} with {each}, {d.trials:,} trials."]
    if b.detectable is None:
        reach = f"Detectable at 80% power: {b.detectable_sd:.2f} SD of one confirm seed's difference"
        found.append(f"{reach}; no earlier sweep of this task shows that spread; give it with --sd.{_assumed(b)}")
    else:
        if b.power is not None:
            chance = f"{b.power:.0%} power{_in_practice(b.power)}"
            found.append(f"A true difference of {b.effect:g} {b.metric} is detected with {chance}.")
        share = f"; {_share(b).removeprefix(', ')}" if b.components else ""
        found.append(f"Detectable at 80% power: {b.detectable:.3g} {b.metric}{share} ({b.sd_from}).{_assumed(b)}")
    if len(b.searches) == 1:
        found.append("Configurations and tune seeds are the file's: the variance of another search is unknown.")
    return found


def _assumed(p: Power | BestUse) -> str:
    return f" Assumed: {p.assumed}." if p.assumed else ""


def _in_practice(power: float) -> str:
    """Search results have heavy tails (see `statistics.power`)."""
    return " (a lower bound in practice)" if power < BOUND_UP_TO else ""


def _share(p: Power | BestUse) -> str:
    return f", {p.components.share_of_search:.0%} of the variance from the search" if p.components else ""


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def _times(f: Forecast) -> str:
    def span(row: Quantiles, digits: int) -> str:
        return f"{row.p50:,.{digits}f} [{row.p10:,.{digits}f} to {row.p90:,.{digits}f}]"

    gpu = f", {span(f.gpu_hours, 2)} GPU-hours" if f.gpu_hours.p50 else ""
    return (
        f"Forecast (p50 [p10 to p90]): {span(f.seconds, 0)} s on {f.slots} workers, "
        f"{span(f.trial_seconds, 0)} s of training{gpu}; start-up and contention not included."
    )
