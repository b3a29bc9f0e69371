"""The whole story of `geosweep run`: open or continue the sweep, run it, summarise it, leave nothing behind."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import controls, refusal, results, seal
from orchestrator import plan as planning
from orchestrator.conductor import Arm, Listener, SweepConductor
from orchestrator.executors.base import Executor
from orchestrator.folder import NotFound, SweepFolder, find, read_json, write_atomic
from orchestrator.provenance import provenance, uncommitted
from orchestrator.search.designs import design_for
from orchestrator.search.optuna import OptunaStudy, stable_seed, storage
from orchestrator.spec import Spec, definition, sweep_id
from orchestrator.stopping import Stopper
from orchestrator.tracking.base import Tracker

__all__ = ["Outcome", "open_arms", "open_folder", "provenance", "run"]
MODELS = ("tpe", "gp", "cmaes")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run of the driver ended."""

    state: str
    """done, stopped, budget, or failed: given up."""
    conductor: SweepConductor
    refusal: str = ""
    """Why it was given up for good."""

    @property
    def failed(self) -> int:
        """Trials that failed."""
        return sum(arm.counts()["failed"] for arm in self.conductor.arms.values())


def open_folder(spec: Spec, text: str, root: Path, facts: Mapping[str, str]) -> SweepFolder:
    """The sweep's folder, made on first use."""
    folder = SweepFolder(root, sweep_id(spec))
    folder.level()
    resolved = {
        "schema": "geosweep/resolved/1",
        "sweep_id": folder.sweep_id,
        "definition": definition(spec),
        "tracking": spec.tracking.mlflow,
        "report_metric": spec.report_metric,
        "plan": planning.plan(spec),
        "provenance": dict(facts),
    }
    folder.create(text, resolved)
    seal.close(spec, folder)
    if facts.get("uncommitted") == "yes" and not (folder.path / "uncommitted.diff").exists():
        write_atomic(folder.path / "uncommitted.diff", uncommitted())
    return folder


def open_arms(spec: Spec, folder: SweepFolder, url: str | None = None) -> dict[str, Arm]:
    """One study for each arm on the sweep's storage, with what it already holds."""
    kept = storage(folder.journal, url)
    arms: dict[str, Arm] = {}
    for name, arm in spec.arms.items():
        design = design_for(spec, arm)
        trials = planning.configurations(spec, arm)
        share = spec.method.random_share if spec.method.name in MODELS else 1.0
        study = OptunaStudy(
            kept,
            name=f"{folder.sweep_id}/{name}",
            goals=(spec.metric.goal, *(o.goal for o in spec.objectives)),
            parameters=arm.parameters,
            constraints=spec.constraints,
            facts=planning.facts(spec, arm),
            design=design,
            design_size=round(share * trials),
            seed=stable_seed(spec.method.seed, name),
            sampler=spec.method.name,
        )
        planned = trials * len(spec.seeds.tune) + len(spec.seeds.confirm)
        strict = spec.method.replay == "strict"
        rule, maximize = spec.early_terminate, spec.metric.goal == "maximize"
        arms[name] = Arm(
            spec=arm,
            study=study,
            trials=trials,
            planned=planned,
            lag=spec.method.lag if strict else None,
            stopper=Stopper(rule, maximize=maximize, strict=strict) if rule.rungs else None,
        )
    return arms


def learn(spec: Spec, folder: SweepFolder, arms: Mapping[str, Arm]) -> None:
    """Begin the search with what the sweeps of `warm_start` found in arms of the same name and optimizer.

    Raises NotFound for one that is not under the root, or that trained another task or metric.
    """
    for name in spec.warm_start:
        try:
            source = find(folder.root, name)
        except NotFound as error:
            raise NotFound(f"{spec.source}: warm_start: {error}") from None
        asked = (read_json(source.path / "resolved.json") or {})["definition"]
        mine = definition(spec)
        for key in ("task", "metric"):
            if asked[key] != mine[key]:
                raise NotFound(
                    f"{spec.source}: warm_start: {source.sweep_id} has another {key} ({asked[key]}); "
                    "name a sweep of the same task and metric, or remove it"
                )
        told = results.told_values(source, [spec.metric.name, *(o.name for o in spec.objectives)])
        for arm in arms.values():
            if asked["arms"].get(arm.spec.name, {}).get("optimizer") == arm.spec.optimizer:
                arm.study.learn(source.sweep_id, told.get(arm.spec.name, []))


def run(
    spec: Spec,
    folder: SweepFolder,
    executor: Executor,
    tracker: Tracker,
    listeners: tuple[Listener, ...] = (),
    watch: Callable[[SweepConductor], Any] | None = None,
    storage_url: str | None = None,
) -> Outcome:
    """Run or continue the sweep, controls first. The caller holds the folder.

    `watch(conductor)` is a context manager for a display. Raises ControlFailed.
    """
    folder.stop_file.unlink(missing_ok=True)
    controls.check(spec, folder)
    arms = open_arms(spec, folder, storage_url)
    learn(spec, folder, arms)
    alike = refusal.Alike(spec, folder)
    listeners = (seal.Witness(folder), tracker, alike, *listeners)
    conductor = SweepConductor(spec, folder, arms, listeners=listeners)
    state = "failed"
    try:
        if not conductor.exhausted:
            shown = watch(conductor) if watch else nullcontext()
            with _drain_on_interrupt(folder), _clocked(conductor, folder), shown:
                executor.run(conductor)
        state = {"": "done", "stop": "stopped", "budget": "budget"}[conductor.stopped_by]
        state = "budget" if conductor.limit else "failed" if alike.refusal else state
    finally:
        results.export(folder, folder.results)
        tracker.finish(state, _summaries(spec, folder), _chosen(spec, folder))
        outcome: dict[str, Any] = {"state": state, "tracked": not tracker.trouble, "limit": conductor.limit}
        outcome["complete"] = not conductor.remaining
        write_atomic(folder.path / "outcome.json", json.dumps(outcome))
    return Outcome(state=state, conductor=conductor, refusal=alike.refusal)


def _summaries(spec: Spec, folder: SweepFolder) -> dict[str, dict[str, float]]:
    """Each arm's mean, 95 % t interval and n over the confirm seeds, for the tuned and the reported metric."""
    from orchestrator.compare.intervals import summarize

    arms: dict[str, dict[str, float]] = {name: {} for name in spec.arms}
    for metric in dict.fromkeys((spec.metric.name, spec.report_metric)):
        for arm, values in results.arm_values(folder, metric).items():
            found = summarize(values)
            arms[arm] |= {f"{metric}/mean": found.mean, f"{metric}/n": float(found.n)}
            if found.lo is not None and found.hi is not None:
                arms[arm] |= {f"{metric}/low": found.lo, f"{metric}/high": found.hi}
    return arms


def _chosen(spec: Spec, folder: SweepFolder) -> dict[str, dict[str, Any]]:
    """Each arm's optimizer and best configuration."""
    best = results.best(folder)["arms"]
    return {
        name: {"optimizer": arm.optimizer, **best.get(name, {}).get("parameters", {})}
        for name, arm in spec.arms.items()
    }


@contextmanager
def _clocked(conductor: SweepConductor, folder: SweepFolder) -> Iterator[None]:
    """Store the wall clock spent and why trials wait every two seconds, and at the end."""
    done = threading.Event()

    def note() -> None:
        folder.add_seconds(conductor.seconds)
        write_atomic(folder.waiting, json.dumps(conductor.waiting()), durable=False)

    def tick() -> None:
        while not done.wait(2.0):
            note()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        note()


@contextmanager
def _drain_on_interrupt(folder: SweepFolder) -> Iterator[None]:
    """First Ctrl-C (or SIGTERM): ask the trials to checkpoint and stop. A second Ctrl-C stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if folder.stop_file.exists():
            raise KeyboardInterrupt
        folder.stop_file.touch()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
