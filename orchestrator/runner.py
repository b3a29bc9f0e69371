"""`geosweep run` from start to end: open or continue the sweep, run it, summarize it, and clean up."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from orchestrator import parquet, reconcile, results
from orchestrator.definition import addresses, optimizer_record, overrides, program, task_record
from orchestrator.definition import plan as planning
from orchestrator.definition.errors import UsageError
from orchestrator.definition.model import Spec, definition, sweep_id
from orchestrator.definition.passwords import kept, without_passwords
from orchestrator.definition.resolved import Resolved
from orchestrator.definition.states import Stage, SweepState
from orchestrator.executors.base import Executor
from orchestrator.protocol import controls, flops, pace, retries, seal
from orchestrator.protocol.errors import CodeChanged, ControlFailed
from orchestrator.results.chosen import ranges
from orchestrator.scheduling import abort
from orchestrator.scheduling.callbacks import Begun, Callback
from orchestrator.scheduling.conductor import SweepConductor
from orchestrator.scheduling.studies import learn, open_arms, reopen
from orchestrator.statistics.intervals import bounds_of, summarize
from orchestrator.storage import disk, ending, waiting
from orchestrator.storage.documents import write_atomic
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.lease import LAST
from orchestrator.storage.outcome import SweepOutcome
from orchestrator.storage.periodic import periodic
from orchestrator.storage.provenance import provenance, uncommitted
from orchestrator.tracking.base import Tracker
from orchestrator.trial import noticed
from orchestrator.trial.counted import counted

ONE_WISH_S, MOST_NAMED = 2.0, 5
__all__ = ["Outcome", "open_arms", "open_folder", "provenance", "retry", "run"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run of the driver ended."""

    state: SweepState
    """DONE, STOPPED, BUDGET, or FAILED: given up."""
    conductor: SweepConductor
    repaired: list[str]
    """Differences between study, trial folders, tables and tracker that were repaired at the start and at the end."""
    refusal: str = ""
    """Why it was given up for good."""
    learned: Sequence[str] = ()
    """What the search learned from imported results."""

    @property
    def failed(self) -> int:
        """Number of failed trials."""
        return sum(arm.counts().failed for arm in self.conductor.arms.values())


def open_folder(spec: Spec, text: str, root: Path, facts: Mapping[str, str]) -> SweepFolder:
    """The sweep's folder, created on first use."""
    folder = SweepFolder(root, sweep_id(spec))
    folder.level()
    what = Resolved(
        sweep_id=folder.sweep_id,
        definition=definition(spec),
        tracking=spec.tracking.mlflow and kept(spec.tracking.mlflow),
        report_metric=spec.report_metric,
        plan=planning.plan(spec),
        provenance=facts,
        declares=task_record.of_class(program.declared(definition(spec), spec.report_metric)).document(),
        optimizers=optimizer_record.documents(arm.optimizer for arm in spec.arms.values()),
        overrides=spec.overrides,
        program={"folder": spec.task.folder} if spec.task.is_program else None,
    )
    folder.create(overrides.without_secrets(text), what)
    folder.note_place(Path(spec.source))
    _keep_requirements(spec, folder)
    seal.close(spec, folder)
    if facts.get("uncommitted") == "yes" and not (folder.path / "uncommitted.diff").exists():
        changes = uncommitted()
        for secret in addresses.secrets(text):
            changes = changes.replace(secret.text, "(not shown)")
        write_atomic(folder.path / "uncommitted.diff", without_passwords(changes))
    return folder


def _keep_requirements(spec: Spec, folder: SweepFolder) -> None:
    """Keep the requirements next to the copy of the sweep file that names them."""
    found = spec.environment.file
    if found is not None and not (kept := folder.path / found.relative_to(Path(spec.source).parent)).exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, found.read_text(encoding="utf-8"))


def run(
    spec: Spec,
    folder: SweepFolder,
    executor: Executor,
    tracker: Tracker,
    callbacks: tuple[Callback, ...] = (),
    watch: Callable[[SweepConductor], Any] | None = None,
    storage_url: str | None = None,
    *,
    accept_changed_code: bool = False,
) -> Outcome:
    """Run or continue the sweep, controls first. The caller holds the folder.

    `watch(conductor)` is a context manager for a display. Raises CodeChanged, ControlFailed.
    """
    try:
        seal.check_code(spec, folder, accept=accept_changed_code)
        controls.check(spec, folder)
        spec = pace.calibrated(spec, folder)
        repaired = reconcile.at_start(folder, tracker)
        arms = open_arms(spec, folder, storage_url)
    except BaseException as error:
        _turned_away(spec, folder, tracker, _broken_off(error))
        raise
    learned = learn(spec, folder, arms)
    before = reconcile.study_states(arms)
    alike, begun = abort.Alike(spec, folder), Begun(folder)
    callbacks = (seal.Witness(folder), tracker, alike, begun, *callbacks)
    conductor = SweepConductor(spec, folder, arms, callbacks=callbacks)
    repaired += reconcile.differences(before, arms, folder)
    state, how = SweepState.FAILED, ending.FAULT
    try:
        if not conductor.exhausted:
            shown = watch(conductor) if watch else nullcontext()
            with _drain_on_interrupt(folder, begun), _clocked(conductor, folder), shown:
                executor.run(conductor)
        state = _state(conductor, alike.refusal)
        how = _ending(spec, conductor, state, alike.refusal)
        if state is SweepState.DONE and not spec.task.is_program:
            with disk.tolerated():
                flops.keep(folder, counted(results.ended_trials(folder)), gpu=spec.resources.gpu)
    except BaseException as error:
        how = _broken_off(error)
        if how == ending.STOPPED:
            state = SweepState.STOPPED
        raise
    finally:
        with disk.tolerated():
            parquet.export(folder, folder.results)
        tracker.check(lambda: results.ended_trials(folder))
        final = state is not SweepState.FAILED and not conductor.remaining
        tracker.finish(state, summaries(spec, folder), chosen(spec, folder) if final else {}, how)
        outcome = SweepOutcome(
            state=state,
            tracked=not tracker.trouble,
            limit=conductor.limit,
            complete=not conductor.remaining,
            ending=how,
        )
        with disk.tolerated():
            outcome.write(folder)
    return Outcome(
        state=state,
        conductor=conductor,
        repaired=[*repaired, *tracker.repaired],
        refusal=alike.refusal,
        learned=learned,
    )


def retry(spec: Spec, folder: SweepFolder, url: str | None = None, accept_changed_code: bool = False) -> str:
    """Prepare another attempt at all failed trials; returns what was done. The caller holds the folder.

    Raises CodeChanged, and UsageError if decisions were already made without these trials.
    """
    seal.check_code(spec, folder, accept=accept_changed_code)
    jobs = retries.failed(folder)
    try:
        retries.check(spec, folder, jobs)
    except ValueError as reason:
        raise UsageError(f"--retry-failed: {folder.sweep_id}: {reason}") from None
    abort.forget(folder)
    if not jobs:
        return f"no trial of {folder.sweep_id} has failed"
    if any(job.stage is Stage.TUNE for job in jobs):
        reopen(spec, folder, url)
    retries.set_aside(folder, jobs)
    named = ", ".join(job.trial_id for job in jobs[:MOST_NAMED])
    more = f" and {len(jobs) - MOST_NAMED} more" if len(jobs) > MOST_NAMED else ""
    return (
        f"will be trained again: {named}{more}; their earlier output is in {retries.ASIDE}1 (2, ...) of their folders"
    )


def _state(conductor: SweepConductor, refusal: str) -> SweepState:
    """The sweep's state after a driver that came to its end."""
    if conductor.limit:
        return SweepState.BUDGET
    if refusal:
        return SweepState.FAILED
    return SweepState.STOPPED if conductor.stopped_by else SweepState.DONE


def _ending(spec: Spec, conductor: SweepConductor, state: SweepState, refusal: str) -> str:
    """How this driver ends, in the words of `storage.ending`."""
    if refusal:
        return ending.FAILED
    if conductor.stopped_by == "wait":
        return ending.NO_WORKERS
    failed = sum(arm.counts().failed for arm in conductor.arms.values())
    if state is not SweepState.BUDGET and failed > spec.max_failed and not conductor.remaining:
        return ending.FAILED
    return str(state)


def _broken_off(error: BaseException) -> str:
    """How a driver ends that crashed, in the same words."""
    if isinstance(error, KeyboardInterrupt):
        return ending.STOPPED
    return ending.FAILED if isinstance(error, (CodeChanged, ControlFailed)) else ending.FAULT


def _turned_away(spec: Spec, folder: SweepFolder, tracker: Tracker, how: str) -> None:
    """A driver that trains nothing leaves the sweep unchanged; only its ending is recorded."""
    before = SweepOutcome.read(folder) or SweepOutcome(state=SweepState.FAILED)
    tracker.finish(before.state, summaries(spec, folder), {}, how)
    if (folder.path / LAST).exists():
        with disk.tolerated():
            replace(before, ending=how).write(folder)


def summaries(spec: Spec, folder: SweepFolder) -> dict[str, dict[str, float]]:
    """Each arm's mean, 95% t interval and n, for the tuned and the reported metric.

    n counts studies if the arm has several, otherwise confirm seeds. An arm whose trials all diverged has none of them.
    """
    arms: dict[str, dict[str, float]] = {name: {} for name in spec.arms}
    known = program.declared(definition(spec), spec.report_metric).METRICS
    gone = noticed.diverged(counted(results.ended_trials(folder)))
    for metric in dict.fromkeys((spec.metric.name, spec.report_metric)):
        each = results.arm_values(folder, metric)
        bounds = bounds_of(metric, chain.from_iterable(each.values()), known[metric].bounds)
        for arm, values in each.items():
            if arm in gone:
                continue
            found = summarize(values, bounds=bounds)
            arms[arm] |= {f"{metric}/mean": found.mean, f"{metric}/n": float(found.n)}
            if found.lo is not None and found.hi is not None:
                arms[arm] |= {f"{metric}/low": found.lo, f"{metric}/high": found.hi}
    return arms


def chosen(spec: Spec, folder: SweepFolder) -> dict[str, dict[str, Any]]:
    """Each arm's optimizer and chosen configuration; over several studies, the range of each hyperparameter."""
    found: dict[str, dict[str, Any]] = {name: {"optimizer": arm.optimizer} for name, arm in spec.arms.items()}
    for arm, one in results.best(folder).arms.items():
        studies = [each.parameters for each in one.counted]
        found[arm] |= ranges(studies) if studies else one.parameters
    return found


@contextmanager
def _clocked(conductor: SweepConductor, folder: SweepFolder) -> Iterator[None]:
    """Store the elapsed wall clock and why trials wait every two seconds, and at the end."""

    def note() -> None:
        with disk.tolerated():
            folder.add_seconds(conductor.seconds)
            waiting.write(folder, conductor.waiting())

    try:
        with periodic(2.0, note, name="clock"):
            yield
    finally:
        note()


@contextmanager
def _drain_on_interrupt(folder: SweepFolder, begun: Begun) -> Iterator[None]:
    """First Ctrl-C, SIGTERM or closed terminal: ask the trials to checkpoint and stop. A second one stops at once.

    So does a first Ctrl-C while workers start: no trial has anything to save yet.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    told = -math.inf

    def ask(number: int, frame: Any) -> None:
        if number == signal.SIGHUP:
            _let_go_of(terminals)
        nonlocal told
        if number == signal.SIGTERM and time.monotonic() - told < ONE_WISH_S:
            return  # a process and its parent, which forwards it, are often signaled together
        told = time.monotonic() if number == signal.SIGTERM else told
        if folder.stop_file.exists() or (number == signal.SIGINT and not begun.yet):
            raise KeyboardInterrupt
        folder.stop_file.touch()

    terminals = [fd for fd in (1, 2) if os.isatty(fd)]
    asks = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        asks.append(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in asks}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _let_go_of(terminals: Sequence[int]) -> None:
    """Stop printing: writing to a closed terminal is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for fd in terminals:
        os.dup2(nowhere, fd)
    os.close(nowhere)
