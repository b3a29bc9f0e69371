"""Start a sweep for the command or a Python caller: check root and cluster, make executor and tracker, run.

Errors are raised with the message to show to the user; anything merely worth knowing is passed to `say`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from orchestrator import notifying, reconcile, results, runner
from orchestrator.definition import method
from orchestrator.definition.environment import unmet
from orchestrator.definition.errors import BudgetSpent, SpecError, TrialsFailed, UsageError
from orchestrator.definition.model import Spec, sweep_id
from orchestrator.definition.passwords import whole
from orchestrator.definition.states import SweepState
from orchestrator.executors.base import Executor
from orchestrator.executors.debug import DebugExecutor
from orchestrator.protocol import extensions, fair, rehearsal, retries, seal
from orchestrator.remote import CODE, Parcel
from orchestrator.scheduling import abort
from orchestrator.scheduling.callbacks import Callback
from orchestrator.scheduling.conductor import SweepConductor
from orchestrator.scheduling.studies import check_sampler, teachers
from orchestrator.scheduling.waiting import gave_up
from orchestrator.storage import disk, ending, object_store, raced
from orchestrator.storage.errors import NoWorkers
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.outcome import SweepOutcome
from orchestrator.tracking.base import NoTracker, Tracker
from orchestrator.tracking.mlflow_sweep import tracker_of
from orchestrator.travel.arrival import needs
from orchestrator.travel.errors import CannotTravel
from orchestrator.trial import by_value, noticed

if TYPE_CHECKING:
    from orchestrator.executors.ray_cluster import RayCluster

RAY, DEBUG = "ray", "debug"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep is run; nothing here changes its results or its id."""

    executor: str = RAY
    """`ray`, or `debug`: in this process, one trial after another."""
    tracking: bool = True
    """Log to MLflow."""
    cache: bool = True
    """Reuse trials that were already trained under the root."""
    storage: str = ""
    """Database for the studies; empty: a journal file in the sweep's folder."""
    address: str = ""
    """Ray cluster, `auto` or HOST:PORT; empty: a private one."""
    max_concurrent: int = 0
    """Concurrent trials; 0: as the file says."""
    tracking_uri: str = ""
    """MLflow server, if the file names none."""
    accept_changed_code: bool = False
    """Continue although source files changed; the result is stamped exploratory."""
    fair: bool = False
    """Refuse a sweep file that breaks a fairness rule without a stated reason (see `protocol.fair`)."""
    retry_failed: bool = False
    """Train failed trials again."""
    steps: bool = True
    """Before the first trial, let each arm take a step at the corners of its space (see `protocol.rehearsal`)."""
    give_up: Callable[[SpecError], NoReturn] | None = None
    """Ends the process with an error when something cannot be interrupted."""
    parcel: Parcel | None = None
    """The user's own code, for the machines of a cluster (see `travel`)."""
    cluster: RayCluster | None = None
    """A private cluster that was started ahead."""
    notify: tuple[str, ...] = ()
    """Webhooks in addition to the file's: `URL` for all events, or `EVENT=URL`."""

    def __post_init__(self) -> None:
        if self.executor not in (RAY, DEBUG):
            raise UsageError(f"executor {self.executor!r}: use ray, or debug for this process")
        if self.max_concurrent < 0:
            raise UsageError(f"max_concurrent {self.max_concurrent}: a count of trials, or 0 for what the file says")

    @property
    def elsewhere(self) -> bool:
        """Whether trials run on an existing cluster."""
        return self.address not in ("", "local")


class Say(Protocol):
    """Shows messages to the user."""

    def __call__(self, line: str, *, warns: bool = False) -> None:
        """Show one line; `warns`: something did not go as requested."""


@dataclass(frozen=True, kw_only=True)
class Launched:
    """A sweep that was run now or earlier."""

    spec: Spec
    """The definition with the options applied."""
    folder: SweepFolder
    state: SweepState
    unfinished: bool
    """Whether trials are left to start: the sweep was drained, or its wall clock is spent."""


def launch(
    spec: Spec,
    text: str,
    root: Path,
    options: Options,
    *,
    say: Say,
    callbacks: tuple[Callback, ...] = (),
    watch: Callable[[SweepConductor], AbstractContextManager[None]] | None = None,
) -> Launched:
    """Run the sweep that `text` defines, or continue it. `watch(conductor)` shows its progress.

    Raises UsageError and Unfair before anything is created, TrialsFailed for a sweep that was given up, and the
    exceptions of `runner.run`.
    """
    spec = amended(spec, options)
    check_place(spec, root, options, say)
    if options.fair:
        fair.check(text, spec.source or "the sweep")
    teachers(spec, root)
    if options.cluster is not None:
        options.cluster.settled()  # or its processes could inherit what a task does to this one while it is tried
    _rehearse(spec, text, root, options, say)
    facts = _facts(spec, options)
    names = [spec.task.name, *(arm.optimizer for arm in spec.arms.values())]
    carried = by_value.dumps(names) if options.executor == RAY else b""
    with disk.named(root):
        folder = runner.open_folder(spec, text, root, facts)
    with disk.named(folder.path), folder.hold(options.storage):
        ending.clear(folder)
        folder.note_tracked(options.tracking)
        spec = extensions.applied(spec, folder)
        if options.retry_failed:
            say(runner.retry(spec, folder, options.storage or None, options.accept_changed_code))
        if again := abort.standing(spec, folder):
            raise TrialsFailed(again)
        if _already_done(folder):
            say(f"sweep {folder.sweep_id} is done; nothing to run")
            _repair(spec, folder, options, say)
            outcome = SweepOutcome.read(folder)
            assert outcome is not None
            return Launched(spec=spec, folder=folder, state=outcome.state, unfinished=False)
        say(f"sweep {folder.sweep_id} in {folder.place}/")
        if spec.overrides:
            say(f"with {' '.join(spec.overrides)}")
        ended = _drive(spec, folder, options, facts, carried, say, callbacks, watch)
    for line in (*ended.learned, *(f"repaired: {line}" for line in ended.repaired)):
        say(line)
    _summarize_run(spec, folder, ended.conductor, say)
    if ended.refusal:
        raise TrialsFailed(ended.refusal)
    if ended.conductor.stopped_by == "wait":
        raise NoWorkers(gave_up(spec.resources, ended.conductor.remaining))
    left = ended.state is not SweepState.DONE and bool(ended.conductor.remaining)
    return Launched(spec=spec, folder=folder, state=ended.state, unfinished=left)


def _rehearse(spec: Spec, text: str, root: Path, options: Options, say: Say) -> None:
    """Of a new sweep, try its sampler and, if trials run on this machine, the arms' first steps. Raises SpecError."""
    foreign, here = method.is_foreign(spec.method.name), options.steps and not (options.elsewhere or spec.resources.gpu)
    if not (foreign or here) or SweepFolder(root, sweep_id(spec)).path.exists():
        return
    if foreign:
        check_sampler(spec, text)
    if here:
        for line in rehearsal.rehearse(spec, text, give_up=options.give_up).lines:
            say(line)


def _facts(spec: Spec, options: Options) -> dict[str, str]:
    """The provenance, with the digest of the uploaded code and the versions of a third-party sampler."""
    facts = runner.provenance()
    if traveled := os.environ.get(CODE, options.parcel.digest if options.parcel else ""):
        facts["code"] = traveled
    if method.is_foreign(spec.method.name):
        versions = ", ".join(f"{name} {version}" for name, version in method.identity(spec.method).items())
        facts["sampler"] = f"{spec.method.name} ({versions})"
    return facts


def amended(spec: Spec, options: Options) -> Spec:
    """The definition with the options for cache, workers, tracking server and webhooks."""
    spec = replace(spec, cache=spec.cache and options.cache)
    if options.max_concurrent:
        most, pack = options.max_concurrent, min(options.max_concurrent, spec.resources.pack)
        spec = replace(spec, resources=replace(spec.resources, max_concurrent=most, pack=pack))
    if options.tracking_uri and not spec.tracking.mlflow:
        spec = replace(spec, tracking=replace(spec.tracking, mlflow=options.tracking_uri))
    return replace(spec, notify=notifying.with_options(spec.notify, options.notify))


def check_place(spec: Spec, root: Path, options: Options, say: Say) -> None:
    """Raises UsageError for an incompatible root, cluster or budget, CannotTravel for a missing package."""
    if options.executor == RAY and options.elsewhere and not root.is_absolute():
        raise UsageError(
            f"--root {root}: a relative path means a different folder on each node of a cluster; give the absolute "
            "path of a folder that every node mounts"
        )
    if spec.budget.unit == "seconds" and options.elsewhere:
        raise UsageError(
            f"--address {options.address}: budget.unit seconds is calibrated on this machine, but the trials would "
            "run on others; omit --address, or use grad_evals, steps or tokens"
        )
    if not options.elsewhere and (missing := unmet(spec.environment.requirements)):
        raise CannotTravel(f"environment.requirements: {'; '.join(missing)}: pip install it here too")
    for name, option, given in (
        ("RAY_ADDRESS", "--address", options.address),
        ("MLFLOW_TRACKING_URI", "--tracking-uri", options.tracking_uri or spec.tracking.mlflow),
    ):
        if os.environ.get(name) and not given:
            say(f"{name} is set but not used; pass {option} ${name} to use it")
    if spec.tracking.mlflow and options.tracking:
        whole(spec.tracking.mlflow)
    if (uri := object_store.far(root)) and not options.storage:
        raise UsageError(
            f"--root {uri}: an object store cannot hold the studies or the lock; name a PostgreSQL database with "
            "--storage "
            "(GEOSWEEP_STORAGE), postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
        )
    if uri and options.tracking and not spec.tracking.mlflow:
        raise UsageError(
            f"--root {uri}: an object store cannot hold an MLflow store; name a server with --tracking-uri "
            "(MLFLOW_TRACKING_URI), or give --no-tracking"
        )


def check_budget(folder: SweepFolder) -> None:
    """Raises BudgetSpent if a limit ended the search."""
    outcome = SweepOutcome.read(folder)
    if outcome is not None and outcome.limit:
        raise BudgetSpent(
            f"the search ended at budget.{outcome.limit}; the best configurations so far were confirmed from the "
            "reserve. "
            f"To continue searching, give the sweep a new name, a larger budget and warm_start: [{folder.sweep_id}]"
        )


def check_failed(spec: Spec, folder: SweepFolder) -> None:
    """Raises TrialsFailed if more trials failed than the sweep allows."""
    failed = results.status(folder).total.failed
    if failed > spec.max_failed:
        again = folder.command("run", "FILE", "--retry-failed")
        raise TrialsFailed(
            f"{failed} trial{'s' if failed > 1 else ''} failed ({spec.max_failed} allowed: max_failed); see: "
            f"{folder.command('status', folder.sweep_id)}\nonce the cause is fixed: {again}"
        )


def _drive(
    spec: Spec,
    folder: SweepFolder,
    options: Options,
    facts: Mapping[str, str],
    carried: bytes,
    say: Say,
    callbacks: tuple[Callback, ...],
    watch: Callable[[SweepConductor], AbstractContextManager[None]] | None,
) -> runner.Outcome:
    """Start the executor and the tracker, run, and clean up."""
    if options.elsewhere and spec.environment.requirements:
        say("the cluster is installing environment.requirements first, which may take minutes")
    executor = _executor(spec, folder, options, carried)
    facts = _known(spec, folder, facts)
    warn = partial(say, warns=True)
    tracker: Tracker = tracker_of(spec, folder, facts, say=warn) if options.tracking else NoTracker()
    notifier = notifying.notifier(spec, folder, warn)
    if options.address:
        callbacks, watch = _measured(folder, callbacks, watch)
    try:
        outcome = runner.run(
            spec,
            folder,
            executor,
            tracker,
            (*callbacks, notifier),
            watch=watch,
            storage_url=options.storage or None,
            accept_changed_code=options.accept_changed_code,
        )
        notifying.ended(notifier, folder, outcome)
    except Exception as error:
        notifier.end("failed", f"the driver crashed: {notifying.first_line(error)}", state=SweepState.FAILED)
        raise
    finally:
        executor.close()
        notifier.close()
    if options.tracking and not tracker.trouble and (problem := _verdict(folder, spec.tracking.mlflow)):
        say(f"the verdict was not logged to MLflow ({problem})", warns=True)
    if tracker.trouble:
        say(f"not everything was logged to MLflow ({tracker.trouble}); run this command again", warns=True)
    return outcome


def _verdict(folder: SweepFolder, uri: str | None) -> str:
    """Write the verdict to MLflow's parent run if the sweep is over; returns what went wrong, or an empty string."""
    from orchestrator.compare import told

    return told.tell(folder, uri)


def _measured(
    folder: SweepFolder,
    callbacks: tuple[Callback, ...],
    watch: Callable[[SweepConductor], AbstractContextManager[None]] | None,
) -> tuple[tuple[Callback, ...], Callable[[SweepConductor], AbstractContextManager[None]]]:
    """The same, with the sweep exported to the cluster's metrics."""
    from orchestrator.executors.ray_metrics import RayMetrics

    metrics = RayMetrics(folder.sweep_id)

    @contextmanager
    def watched(conductor: SweepConductor) -> Iterator[None]:
        with metrics.watching(conductor.waiting), watch(conductor) if watch else nullcontext():
            yield

    return (*callbacks, metrics), watched


def _executor(spec: Spec, folder: SweepFolder, options: Options, carried: bytes) -> Executor:
    """The executor; Ray is started only if a trial is left to train."""
    unfinished = results.status(folder, held=True).total.waiting
    if options.executor == DEBUG or not unfinished:
        return DebugExecutor()
    from orchestrator.executors.ray import RayExecutor

    r = spec.resources
    executor = RayExecutor(
        cpu=r.cpu,
        gpu=r.gpu,
        processes=r.processes,
        max_concurrent=max(1, r.max_concurrent // r.pack) if r.max_concurrent else None,
        address=options.address or None,
        parcel=options.parcel,
        requirements=spec.environment.requirements if options.elsewhere else (),
        carried=carried,
        cluster=options.cluster,
    )
    if options.address and not folder.far:
        executor.look_for(folder.path)
    if options.address:
        executor.look_for_parts(*needs(spec))
    return executor


def _known(spec: Spec, folder: SweepFolder, facts: Mapping[str, str]) -> dict[str, str]:
    """Facts of the sweep as tags of its run: those given, its seal, its overrides."""
    known = {**facts, "seal": seal.sealed_hash(folder)}
    if spec.overrides:
        known["overrides"] = " ".join(spec.overrides)
    return {f"geosweep.{name}": fact for name, fact in known.items()}


def _already_done(folder: SweepFolder) -> bool:
    """Whether nothing is left to train: the sweep is complete and all its results still exist."""
    outcome = SweepOutcome.read(folder)
    expected = seal.witnessed(folder).keys() - retries.waiting(folder)
    there = all((folder.trial(trial) / "result.json").exists() for trial in expected)
    return outcome is not None and outcome.is_over and outcome.tracked and there


def _repair(spec: Spec, folder: SweepFolder, options: Options, say: Say) -> None:
    """Repair what a finished sweep left behind, in case part of it was lost."""
    tracker = tracker_of(spec, folder, _known(spec, folder, {})) if options.tracking else None
    try:
        for line in reconcile.reconcile(folder, tracker, options.storage or None):
            say(f"repaired: {line}")
    except ConnectionError as error:
        say(f"MLflow does not answer ({error}); it was not checked", warns=True)


def _summarize_run(spec: Spec, folder: SweepFolder, conductor: SweepConductor, say: Say) -> None:
    """Report trials that were reused or skipped, and the cost of strict replay."""
    for line in noticed.reused_words(noticed.reused(results.ended_trials(folder))):
        say(line)
    for arm, one in race.stopped.items() if (race := raced.read(folder)) else ():
        say(f"the race stopped {arm}: {one.reason}")
    if spec.method.replay == "strict":
        all_s = conductor.workers * (time.monotonic() - conductor.pace_from) if conductor.pace_from else 0.0
        share = f" ({conductor.idle_s / all_s:.0%} of {conductor.workers} workers' time)" if all_s else ""
        say(f"strict replay kept workers idle for {conductor.idle_s:.1f} worker-seconds{share}")
