"""`logs`, `metrics`: what trials printed, and what they measured."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from orchestrator.cli import remote
from orchestrator.cli.app import ROOT, Address, Exit, Json, Root, Sweep, app, data, emit, fail, say, show, talk
from orchestrator.cli.k8s_options import Profile, Registry
from orchestrator.definition.states import State
from orchestrator.storage.errors import NotFound

if TYPE_CHECKING:
    from orchestrator.storage.folder import SweepFolder
    from orchestrator.storage.metric_log import LoggedPoint
    from orchestrator.trial.job import Result

LOOK_S, LOOK_FAR_S = 0.3, 2.0
"""How often `--follow` polls a file."""
Trial = Annotated[str, typer.Argument(help="Trial id, or a unique prefix; default: all that failed.")]


@app.command()
def logs(
    sweep: Sweep = "@last",
    trial: Trial = "",
    stderr: Annotated[bool, typer.Option("--stderr", help="Standard error instead of standard output.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow until the trial ends.")] = False,
    worker: Annotated[
        int, typer.Option(min=0, help="Process (rank) of a trial that several processes train.", show_default=False)
    ] = 0,
    driver: Annotated[
        bool,
        typer.Option("--driver", help="Output of the drivers of a sweep that ran as a job, kept in its folder."),
    ] = False,
    profile: Profile = "",
    registry: Registry = "",
    root: Root = ROOT,
    address: Address = "",
    as_json: Json = False,
) -> None:
    """Show what a trial printed, to the last line before a crash; for a sweep, how its failed trials ended.

    With --address, the output of its driver; from the sweep's folder if the cluster no longer has it. On Kubernetes a
    Job reads that of trials on the claim; --profile and --registry name claim and images of a sweep that was stopped.

    Example: geosweep logs @last sgd-0003-s0 --follow
    """
    from orchestrator.storage import folder
    from orchestrator.trial import log_files
    from orchestrator.trial.record import read_result

    if follow and (as_json or not trial):
        fail(f"--follow {'and --json exclude each other' if as_json else 'needs a trial: name one'}", Exit.USAGE)
    stream = "stderr" if stderr else "stdout"
    if driver and trial:
        fail("--driver shows the sweep's own log; leave the trial out", Exit.USAGE)
    if address and not (driver and _is_under(root, sweep)):
        asked = [trial, *(["--stderr"] * stderr), *(["--follow"] * follow), "--worker", str(worker)] if trial else []
        shown = remote.logs(
            address,
            sweep,
            ["--driver"] if driver else asked,
            as_json,
            stream=stream,
            profile=profile,
            registry=registry,
            elsewhere=lambda: sweep != "@last" and _is_under(root, sweep),
        )
        if shown:
            return
        driver = not trial
    found = folder.find(root, sweep)
    if driver:
        return _of_drivers(found, as_json)
    if not trial:
        return _failed(found, as_json)
    trial = named(found, trial)
    place, name = found.address(trial), log_files.file_name(stream, worker)
    result = read_result(found.trial(trial))
    if as_json:
        texts = {s: log_files.read(place, log_files.file_name(s, worker)) for s in log_files.STREAMS}
        emit(
            {
                "schema": "geosweep/logs/2",
                "sweep_id": found.sweep_id,
                "trial_id": trial,
                "state": result.state if result else State.RUNNING if found.is_held() else State.INTERRUPTED,
                **{s: text.decode(errors="replace") for s, text in texts.items()},
                "error": result.error if result else "",
            }
        )
        return
    shown = False
    for part in _parts(found, trial, name) if follow else [log_files.read(place, name)]:
        shown = shown or bool(part)
        _write(part)
    if not shown:
        _say_nothing(found, trial, stream, worker)
    if (result := read_result(found.trial(trial))) is not None and result.error:
        talk.print(f"{trial} failed:\n{result.error}", highlight=False, markup=False)


def _is_under(root: Path, sweep: str) -> bool:
    """Whether the sweep can be read from here."""
    from orchestrator.storage import folder
    from orchestrator.storage.object_store import StoreError

    try:
        folder.find(root, sweep)
    except (NotFound, StoreError):
        return False
    return True


def _of_drivers(found: SweepFolder, as_json: bool) -> None:
    """The output of the drivers, one after another."""
    from orchestrator.cli.job import driver_logs
    from orchestrator.trial import log_files

    place = found.far.uri if found.far is not None else str(found.path)
    there = found.far.names() if found.far is not None else [path.name for path in found.path.iterdir()]
    texts = {name: log_files.read(place, name) for name in driver_logs(there)}
    if as_json:
        shown = {name: text.decode(errors="replace") for name, text in texts.items()}
        return emit({"schema": "geosweep/logs/2", "sweep_id": found.sweep_id, "drivers": shown})
    for name, text in texts.items():
        talk.print(f"[{name}]", highlight=False, markup=False)
        _write(text)
    if not texts:
        talk.print(f"{found.sweep_id} has no driver log: only run --as-job keeps one", highlight=False)


def _parts(found: SweepFolder, trial: str, name: str) -> Iterator[bytes]:
    """The output of a trial, until it ends, or its sweep is no longer running."""
    from orchestrator.trial import log_files

    place, every_s = found.address(trial), LOOK_FAR_S if found.far else LOOK_S
    idle = 0

    def over() -> bool:
        nonlocal idle
        ended = log_files.read(place, "result.json") if found.far else (found.trial(trial) / "result.json").exists()
        if ended:
            return True
        idle += 1
        if idle % 8 or found.is_held():
            return False
        talk.print(f"{trial} has not ended, but {found.sweep_id} is not running; run it again", highlight=False)
        return True

    return log_files.follow(lambda: log_files.read(place, name), over, every_s=every_s)


def _write(part: bytes) -> None:
    """As the trial printed it."""
    if (binary := getattr(sys.stdout, "buffer", None)) is not None:
        sys.stdout.flush()
        binary.write(part)
    else:
        sys.stdout.write(part.decode(errors="replace"))
    sys.stdout.flush()


def _say_nothing(found: SweepFolder, trial: str, stream: str, worker: int) -> None:
    from orchestrator.trial import log_files
    from orchestrator.trial.record import read_result

    result = read_result(found.trial(trial))
    if result is not None and result.cached_from:
        sweep, _, there = result.cached_from.partition("/")
        said = f"{trial} was not trained here but reused; see: {found.command('logs', sweep, there)}"
        if found.far is None and not (found.root / sweep).exists():
            said = f"{trial} was not trained here but reused from {sweep}, which was deleted with what it printed"
    else:
        other = next(s for s in log_files.STREAMS if s != stream)
        more = log_files.read(found.address(trial), log_files.file_name(other, worker))
        hint = ["--stderr"] if other == "stderr" else []
        see = f"; it did on {other}: {found.command('logs', found.sweep_id, trial, *hint)}" if more else ""
        said = f"{trial} printed nothing on {stream}{see}"
    say(said)


def _failed(found: SweepFolder, as_json: bool) -> None:
    """How the failed trials of a sweep ended."""
    from orchestrator import results

    status = results.status(found)
    errors, last = status.errors, status.last_lines
    if as_json:
        emit({"schema": "geosweep/logs/2", "sweep_id": found.sweep_id, "errors": errors, "last_lines": last})
        return
    for name, error in errors.items():
        data.print(f"{name}:\n{error}", highlight=False, markup=False)
        if name in last:
            data.print(last[name], highlight=False, markup=False)
    if not errors:
        talk.print("no trial failed; name a trial to see its output", highlight=False)


def named(found: SweepFolder, trial: str) -> str:
    """The trial with this id or unique prefix. Raises NotFound."""
    there = [path.parent.name for path in sorted((found.path / "trials").glob("*/trial.json"))]
    matches = [t for t in there if t == trial] or [t for t in there if t.startswith(trial)]
    if len(matches) == 1:
        return matches[0]
    which = ", ".join(matches[:8]) + (", ..." if len(matches) > 8 else "")
    raise NotFound(
        f"{trial!r} names {len(matches)} trials of {found.sweep_id}: {which}"
        if matches
        else f"sweep {found.sweep_id} has no trial {trial!r}; the ids are the folders in {found.place}/trials/"
    )


@app.command()
def metrics(
    sweep: Sweep = "@last",
    trial: Annotated[str, typer.Argument(help="Trial id, or a unique prefix; default: all trials.")] = "",
    root: Root = ROOT,
    as_json: Json = False,
) -> None:
    """Show what a trial measured, by gradient evaluations or the unit of a script; for all trials, the latest.

    Example: geosweep metrics @last sgd-0003-s0
    """
    from orchestrator.protocol import extensions
    from orchestrator.storage import folder
    from orchestrator.trial.record import read_result, result_document

    found = folder.find(root, sweep)
    extensions.look(found, "metrics")
    if not trial:
        return _newest(found, as_json)
    trial = named(found, trial)
    result = read_result(found.trial(trial))
    points = _logged(found.trial(trial), result)
    if as_json:
        emit(
            {
                "schema": "geosweep/metrics/1",
                "sweep_id": found.sweep_id,
                "trial_id": trial,
                "points": [point.document() for point in points],
                "result": result and result_document(result),
            }
        )
        return
    for point in points:
        words = "  ".join(f"{k} {v:.5g}" for k, v in point.metrics.items())
        data.print(f"{point.step:>8.0f}  {words}", highlight=False)
    if result is not None and result.error:
        data.print(result.error, highlight=False, markup=False)


def _logged(trial: Path, result: Result | None) -> list[LoggedPoint]:
    """The intact points of a trial's log; what of a completed trial is lost is said."""
    from orchestrator.storage.metric_log import MetricLog

    path = trial / "metrics.jsonl"
    points, damage = MetricLog(path).read()
    if result is not None and result.state is State.COMPLETE and (damage or not points):
        lost = f"{damage} of its lines left out" if damage else "it is empty" if path.exists() else "it is missing"
        talk.print(f"{path} is damaged: {lost}", highlight=False, markup=False, soft_wrap=True)
    return points


def _counted(found: SweepFolder) -> str:
    """The unit of the steps in its logs: a script's budget unit, or that of imported runs."""
    from orchestrator.definition.program_keys import NAME

    resolved = found.resolved()
    if resolved.imported:
        return "step"
    definition = resolved.definition
    unit = definition["budget"]["unit"] if definition.get("task", {}).get("name") == NAME else "grad_evals"
    return "grad evals" if unit == "grad_evals" else str(unit)


def _newest(found: SweepFolder, as_json: bool) -> None:
    """One row for each trial that was started."""
    from orchestrator.storage.metric_log import LoggedPoint
    from orchestrator.trial.record import read_result

    rows: list[dict[str, Any]] = []
    for path in sorted((found.path / "trials").glob("*/trial.json")):
        result = read_result(path.parent)
        points = _logged(path.parent, result)
        newest = points[-1] if points else LoggedPoint(0, {})
        state = result.state if result else State.RUNNING
        rows.append({"trial_id": path.parent.name, "state": state, "step": newest.step, "metrics": newest.metrics})
    if as_json:
        emit({"schema": "geosweep/metrics/1", "sweep_id": found.sweep_id, "trials": rows})
        return
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"] if name != "cost/grad_evals"))
    table = Table(title=f"{found.sweep_id}: latest metrics")
    for name in ("trial", "state", _counted(found), *names):
        table.add_column(name, justify="left" if name in ("trial", "state") else "right")
    for row in rows:
        cells = (f"{row['metrics'][n]:.5g}" if n in row["metrics"] else "-" for n in names)
        table.add_row(row["trial_id"], row["state"], f"{row['step']:,.0f}", *cells)
    show(table)
