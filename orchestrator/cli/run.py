"""`run`, `validate`: verbs on a sweep file."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.app import (
    ROOT,
    Exit,
    File,
    Json,
    Overrides,
    Root,
    Storage,
    app,
    asked_of,
    data,
    emit,
    fail,
    show,
    show_stamps,
    talk,
)
from orchestrator.definition.states import SweepState
from orchestrator.storage.folder import SweepFolder, read_json
from orchestrator.storage.outcome import SweepOutcome

if TYPE_CHECKING:
    from orchestrator.definition.model import Spec
    from orchestrator.definition.overrides import Asked
    from orchestrator.runner import Outcome
    from orchestrator.scheduling.conductor import SweepConductor
    from orchestrator.tracking.mlflow import MlflowTracker


class Backend(enum.StrEnum):
    """Where trials run."""

    RAY = "ray"
    DEBUG = "debug"


@app.command()
def run(
    file: File,
    overrides: Overrides = None,
    root: Root = ROOT,
    executor: Annotated[
        Backend, typer.Option(help="ray, or debug: this process, one trial after another.")
    ] = Backend.RAY,
    tracking: Annotated[bool, typer.Option(help="Log to MLflow.")] = True,
    cache: Annotated[bool, typer.Option(help="Take over trials that were already trained under the root.")] = True,
    storage: Storage = "",
    address: Annotated[
        str, typer.Option(help="Ray cluster, auto or HOST:PORT; default: a private one.", show_default=False)
    ] = "",
    max_concurrent: Annotated[
        int, typer.Option(min=0, help="Trials at a time; 0: what the file says.", show_default=False)
    ] = 0,
    tracking_uri: Annotated[
        str,
        typer.Option(help="MLflow server when the file names none.", show_default=False),
    ] = "",
    accept_changed_code: Annotated[
        bool,
        typer.Option("--accept-changed-code", help="Continue although source files changed; stamped exploratory."),
    ] = False,
    notify: Annotated[
        list[str] | None,
        typer.Option(help="Webhook for messages, URL or EVENT=URL: done, diverged, failed, stuck.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a sweep, or continue it where it stopped. Ctrl-C drains and checkpoints.

    Example: geosweep run sweeps/quickstart.yaml budget.trials_per_arm=16
    """
    from orchestrator import display, results
    from orchestrator.protocol import extensions, seal

    definition, folder = carry_out(
        asked_of(file, overrides),
        root=root,
        executor=executor,
        tracking=tracking,
        cache=cache,
        storage=storage,
        address=address,
        max_concurrent=max_concurrent,
        tracking_uri=tracking_uri,
        accept_changed_code=accept_changed_code,
        notify=notify or (),
    )
    if as_json:
        emit(results.best(folder))
    else:
        show(display.arms_table(definition, folder))
        show_stamps(seal.stamps(folder))
        talk.print(
            f"Next: geosweep ui; geosweep best {folder.sweep_id} --json; geosweep compare @last", highlight=False
        )
    extensions.look(folder, "run")
    conclude(definition, folder)


def carry_out(
    asked: Asked,
    *,
    root: Path,
    executor: Backend,
    tracking: bool,
    cache: bool,
    storage: str,
    address: str,
    max_concurrent: int,
    tracking_uri: str,
    accept_changed_code: bool,
    notify: Sequence[str] = (),
) -> tuple[Spec, SweepFolder]:
    """Run or continue a sweep; the options are those of `run`."""
    from orchestrator import runner
    from orchestrator.cli import notifying
    from orchestrator.protocol import extensions
    from orchestrator.scheduling import abort
    from orchestrator.storage import disk, object_store

    definition = asked.load()
    definition = replace(definition, cache=definition.cache and cache)
    if max_concurrent:
        definition = replace(definition, resources=replace(definition.resources, max_concurrent=max_concurrent))
    if tracking_uri and not definition.tracking.mlflow:
        definition = replace(definition, tracking=replace(definition.tracking, mlflow=tracking_uri))
    if executor is Backend.RAY and address not in ("", "local") and not root.is_absolute():
        fail(
            f"--root {root}: a relative folder is another one on each node of a cluster; "
            "name the absolute path of a folder that every node mounts",
            Exit.USAGE,
        )
    if definition.budget.unit == "seconds" and address not in ("", "local"):
        fail(
            f"--address {address}: budget.unit seconds is timed on this machine, and trials would run on others; leave "
            "--address out, or use grad_evals, steps or tokens",
            Exit.USAGE,
        )
    definition = replace(definition, notify=notifying.with_options(definition.notify, notify))
    _not_taken(address, tracking_uri or definition.tracking.mlflow or "")
    if uri := object_store.far(root):
        _check_services(uri, storage, tracking and not definition.tracking.mlflow)
    with disk.named(root):
        folder = runner.open_folder(definition, asked.text, root, facts := runner.provenance())
    identity = folder.sweep_id
    with disk.named(folder.path), folder.hold(storage):
        definition = extensions.applied(definition, folder)
        if again := abort.standing(definition, folder):
            fail(again, Exit.TRIALS_FAILED)
        if _already_done(folder):
            talk.print(f"sweep {identity} is done; nothing to run", highlight=False)
            _mend(definition, folder, tracking, storage)
        else:
            talk.print(f"sweep {identity} in {folder.place}/", highlight=False)
            if definition.overrides:
                talk.print(f"with {' '.join(definition.overrides)}", highlight=False, markup=False)
            outcome = _drive(definition, folder, executor, tracking, facts, storage, address, accept_changed_code)
            _say(outcome.mended)
            _say_cached(folder)
            for arm, one in (read_json(folder.race) or {"stopped": {}})["stopped"].items():
                talk.print(f"the race stopped {arm}: {one['reason']}", highlight=False, markup=False)
            if definition.method.replay == "strict":
                talk.print(_price(outcome.conductor), highlight=False)
            if outcome.refusal:
                fail(outcome.refusal, Exit.TRIALS_FAILED)
            if outcome.state is not SweepState.DONE and outcome.conductor.remaining:
                _stopped(Path(asked.file), outcome.state)
    return definition, folder


def conclude(definition: Spec, folder: SweepFolder) -> None:
    """Exit with the code of a sweep that its budget ended, or of which too many trials failed."""
    from orchestrator import results

    identity = folder.sweep_id
    ended = SweepOutcome.read(folder)
    if ended is not None and ended.limit:
        fail(
            f"the search ended at budget.{ended.limit}; the best found by then was confirmed from the reserve. "
            f"To search on, give the sweep another name, a larger budget and warm_start: [{identity}]",
            Exit.BUDGET,
        )
    failed = sum(counts["failed"] for counts in results.status(folder)["arms"].values())
    if failed > definition.max_failed:
        fail(
            f"{failed} trials failed ({definition.max_failed} allowed: max_failed); see: geosweep status {identity}",
            Exit.TRIALS_FAILED,
        )


def _say_cached(folder: SweepFolder) -> None:
    """How many trials were trained by earlier sweeps."""
    from orchestrator import results

    found = sum(bool(trial.result.cached_from) for trial in results.ended_trials(folder))
    if found:
        talk.print(f"{found} trials were taken over from earlier sweeps; --no-cache trains them again", highlight=False)


def _not_taken(address: str, tracking_uri: str) -> None:
    """Say which variables of the shell do not count: a sweep goes only where the command or the file sends it."""
    for name, option, given in (
        ("RAY_ADDRESS", "--address", address),
        ("MLFLOW_TRACKING_URI", "--tracking-uri", tracking_uri),
    ):
        if os.environ.get(name) and not given:
            talk.print(f"{name} is set but not used; say {option} ${name} if you mean it", highlight=False)


def _drive(
    definition: Spec,
    folder: SweepFolder,
    backend: Backend,
    tracking: bool,
    facts: Mapping[str, str],
    storage: str,
    address: str,
    accept_changed_code: bool,
) -> Outcome:
    """Start the executor, the tracker and the display, run, and leave nothing running."""
    from orchestrator import display, results, runner
    from orchestrator.cli import notifying
    from orchestrator.tracking.base import NoTracker

    executor: Any
    unfinished = any(counts["waiting"] for counts in results.status(folder, held=True)["arms"].values())
    if backend is Backend.RAY and unfinished:
        from orchestrator.executors.ray import RayExecutor

        r = definition.resources
        executor = RayExecutor(
            cpu=r.cpu, gpu=r.gpu, processes=r.processes, max_concurrent=r.max_concurrent, address=address or None
        )
        if address and not folder.far:
            executor.look_for(folder.path)
    else:
        from orchestrator.executors.debug import DebugExecutor

        executor = DebugExecutor()
    tracker = _tracker(definition, folder, facts) if tracking else NoTracker()
    notifier = notifying.notifier(definition, folder)
    try:
        outcome = runner.run(
            definition,
            folder,
            executor,
            tracker,
            (display.Stretched(talk), notifier),
            watch=lambda c: display.watching(c, talk),
            storage_url=storage or None,
            accept_changed_code=accept_changed_code,
        )
        notifying.ended(notifier, folder, outcome)
    except Exception as error:
        notifier.end("failed", f"the driver broke off: {notifying.first_line(error)}", state="failed")
        raise
    finally:
        executor.close()
        notifier.close()
    if tracker.trouble:
        talk.print(f"MLflow was not told everything ({tracker.trouble}); run this command again", style="yellow")
    return outcome


def _price(conductor: SweepConductor) -> str:
    """What the fixed order of a strict replay cost in this run."""
    all_s = conductor.workers * (time.monotonic() - conductor.pace_from) if conductor.pace_from else 0.0
    share = f" ({conductor.idle_s / all_s:.0%} of {conductor.workers} workers' time)" if all_s else ""
    return f"strict replay kept workers waiting for {conductor.idle_s:.1f} worker-seconds{share}"


def _tracker(definition: Spec, folder: SweepFolder, facts: Mapping[str, str]) -> MlflowTracker:
    from orchestrator.protocol import seal
    from orchestrator.tracking.mlflow import MlflowTracker

    known = {**facts, "seal": seal.sealed_hash(folder)}
    if definition.overrides:
        known["overrides"] = " ".join(definition.overrides)
    return MlflowTracker(
        uri=definition.tracking.mlflow,
        root=folder.root,
        sweep_id=folder.sweep_id,
        name=definition.name,
        description=definition.description,
        facts={f"geosweep.{k}": v for k, v in known.items()},
        studies=definition.seeds.studies,
    )


def _mend(definition: Spec, folder: SweepFolder, tracking: bool, storage: str) -> None:
    """Make what a finished sweep left behind agree again, should somebody have lost a part of it."""
    from orchestrator import reconcile

    tracker = _tracker(definition, folder, {}) if tracking else None
    try:
        _say(reconcile.reconcile(folder, tracker, storage or None))
    except ConnectionError as error:
        talk.print(f"MLflow does not answer ({error}); it was not compared", style="yellow", highlight=False)


def _say(mended: list[str]) -> None:
    for line in mended:
        talk.print(f"mended: {line}", highlight=False, markup=False)


def _check_services(uri: str, storage: str, untracked: bool) -> None:
    """What a sweep in an object store cannot keep there."""
    if not storage:
        fail(
            f"--root {uri}: an object store holds no studies and no lock; name a PostgreSQL database with --storage "
            "(GEOSWEEP_STORAGE), postgresql+psycopg://USER:PASSWORD@HOST/DATABASE",
            Exit.USAGE,
        )
    if untracked:
        fail(
            f"--root {uri}: an object store holds no MLflow store; name a server with --tracking-uri "
            "(MLFLOW_TRACKING_URI), or give --no-tracking",
            Exit.USAGE,
        )


def _already_done(folder: SweepFolder) -> bool:
    """Whether nothing is left to train: the sweep came to its end, and every result of it is still there."""
    from orchestrator.protocol import seal

    outcome = SweepOutcome.read(folder)
    there = all((folder.trial(trial) / "result.json").exists() for trial in seal.witnessed(folder))
    return outcome is not None and outcome.is_over and outcome.tracked and there


def _stopped(file: Path, state: SweepState) -> None:
    if state is SweepState.BUDGET:
        fail(f"the wall-clock budget is spent; raise budget.wall_clock and continue: geosweep run {file}", Exit.BUDGET)
    talk.print(f"drained: every running trial wrote a checkpoint. Continue with: geosweep run {file}", highlight=False)
    raise typer.Exit(int(Exit.INTERRUPTED))


@app.command()
def validate(file: File, overrides: Overrides = None, as_json: Json = False) -> None:
    """Check a sweep file; nothing is started. Exit code 3 and file:line:column when something is wrong.

    Example: geosweep validate sweeps/quickstart.yaml
    """
    from orchestrator.definition import model

    identity = model.sweep_id(asked_of(file, overrides).load())
    if as_json:
        emit({"schema": "geosweep/validate/1", "file": str(file), "valid": True, "sweep_id": identity})
    else:
        data.print(f"{file}: valid, sweep {identity}", highlight=False)
