"""`plan`: what a sweep will do, what it will take, and whether it can find what it looks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from orchestrator.cli.app import ROOT, Exit, File, Json, Root, app, data, emit, fail, show, talk
from orchestrator.definition import currency

if TYPE_CHECKING:
    from orchestrator.definition.model import Spec
    from orchestrator.storage.calibration import Calibrated


@app.command()
def plan(
    file: File,
    effect: Annotated[
        float | None,
        typer.Option(min=0.0, help="Difference that matters, in units of the reported metric: shows power."),
    ] = None,
    sd: Annotated[
        float | None, typer.Option(min=0.0, help="Spread of paired differences; default: from earlier sweeps.")
    ] = None,
    calibrate: Annotated[
        bool | None, typer.Option(help="Train each arm for two seconds to forecast the time. Default: with --effect.")
    ] = None,
    root: Root = ROOT,
    as_json: Json = False,
) -> None:
    """Show arms, steps and gradient evaluations before anything starts; with --effect also power, seeds and time.

    Example: geosweep plan sweeps/quickstart.yaml --effect 0.01
    """
    from orchestrator.compare.planned_power import design
    from orchestrator.definition import plan as planning
    from orchestrator.definition import sweep_file

    if effect == 0 or sd == 0:
        fail("--effect and --sd have to be above 0", Exit.USAGE)
    definition, found = _in_seconds(sweep_file.load(file), root, calibrate)
    document = planning.plan(definition)
    if found:
        document["calibration"] = {arm: asdict(one) for arm, one in found.items()}
    if effect is not None:
        document["power"] = design(definition, effect=effect, root=root, sd=sd)
    if calibrate or (calibrate is None and effect is not None):
        document["forecast"] = _forecast(definition)
    if as_json:
        emit(document)
        return
    show(_arms(document))
    for arm, one in found.items():
        data.print(
            f"{arm}: {one.grad_evals:,.0f} gradient evaluations take {definition.budget.per_trial:g} s alone on this "
            f"machine, to within {one.error:.0%}",
            highlight=False,
        )
    if "power" in document:
        for line in _power(document["power"]):
            data.print(line, highlight=False)
    if "forecast" in document:
        data.print(_times(document["forecast"]), highlight=False, markup=False)


def _in_seconds(definition: Spec, root: Path, calibrate: bool | None) -> tuple[Spec, dict[str, Calibrated]]:
    """The sweep with what its budget in seconds is worth: as kept with the sweep, else timed now and not kept."""
    from orchestrator.definition.model import sweep_id
    from orchestrator.protocol import pace
    from orchestrator.storage import calibration
    from orchestrator.storage.folder import SweepFolder

    if definition.budget.unit != "seconds":
        return definition, {}
    found = calibration.read(SweepFolder(root, sweep_id(definition)))
    if not found and calibrate is not False:
        talk.print(f"timing {len(definition.arms)} arms, a few seconds each", highlight=False)
        found = pace.measured(definition)
    return (pace.filled(definition, found) if found else definition), found


def _forecast(definition: Spec) -> dict[str, Any]:
    import os

    from orchestrator.protocol.forecast import calibrate, forecast

    r = definition.resources
    slots = r.max_concurrent or max(1, (os.cpu_count() or 1) // r.cpu)
    talk.print(f"calibrating: {len(definition.arms)} arms, a few seconds each", highlight=False)
    return forecast(calibrate(definition), slots=slots, gpu=r.gpu)


def _arms(document: Mapping[str, Any]) -> Table:
    def span(found: Any) -> str:
        if found is None:
            return "by calibration"
        return " to ".join(map(span, found)) if isinstance(found, list) else f"{found:,.10g}"

    starts = any("grad_evals_before_first_step" in row for row in document["arms"].values())
    table = Table(title=document["sweep_id"])
    before = ["before its first step"] if starts else []
    for name in ("arm", "trials", "steps a trial", "gradient evaluations a trial", *before, "gradient evaluations"):
        table.add_column(name, justify="left" if name == "arm" else "right")
    for arm, row in document["arms"].items():
        before = [span(row.get("grad_evals_before_first_step", 0))] if starts else []
        each, total = span(row["grad_evals_per_trial"]), span(row["grad_evals"])
        table.add_row(arm, str(row["trials"]), span(row["steps"]), each, *before, total)
    table.caption = _caption(document)
    return table


def _caption(document: Mapping[str, Any]) -> str:
    budget, total = document.get("budget"), document["total_grad_evals"]
    words = [] if budget is None else [f"{currency.spoken(budget)}"]
    if total is not None:
        most = any(isinstance(row["grad_evals_per_trial"], list) for row in document["arms"].values())
        words.append(f"{'at most ' if most else ''}{total:,.0f} gradient evaluations in all")
    return "; ".join(words)


def _power(p: Mapping[str, Any]) -> list[str]:
    lead = f"{p['seeds']} paired seeds, {p['comparisons']} comparisons"
    if p["seeds"] < p["floor"]:
        return [f"{lead}: no effect at all can be found; take {p['floor']} seeds or more"]
    if p["power"] is None:
        return [
            f"{lead}: finds differences of {p['detectable_sd']:.2f} standard deviations (of paired "
            f"differences) with 80 % power.",
            f"{p['sd_from']} tells that spread; give it with --sd to see the power for {p['effect']:g} {p['metric']}",
        ]
    needed = "more than 10,000" if p["seeds_needed"] is None else f"{p['seeds_needed']:,}"
    return [
        f"{lead}: a true difference of {p['effect']:g} {p['metric']} is found with {p['power']:.0%} probability; "
        f"80 % need {needed} seeds.",
        f"Found with 80 %: {p['detectable']:.3g}. Spread of paired differences {p['sd']:.3g} ({p['sd_from']}).",
    ]


def _times(f: Mapping[str, Any]) -> str:
    def span(row: Mapping[str, float], digits: int) -> str:
        return f"{row['p50']:,.{digits}f} [{row['p10']:,.{digits}f} to {row['p90']:,.{digits}f}]"

    gpu = f", {span(f['gpu_hours'], 2)} GPU-hours" if f["gpu_hours"]["p50"] else ""
    return (
        f"Forecast (p50 [p10 to p90]): {span(f['seconds'], 0)} s on {f['slots']} workers, "
        f"{span(f['trial_seconds'], 0)} s of training{gpu}; start-up and contention come on top."
    )
