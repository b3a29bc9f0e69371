"""The trials held by one worker at a time. Those that are compatible are stepped together (`trainables.pack`).

Each remains a separate trial with its own folder, log, checkpoints, reports and end. An error in one of them, such as
an evaluation that raises, is its own. An error in the joint step, such as running out of memory or a hang, cannot be
attributed: the pack is dissolved, its trials return to their newest checkpoints and continue in packs of half the size
after running out of memory, otherwise individually, where the one to blame ends as FAILED and the others do not. The
same happens for a trial that turns out not to fit into a pack.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from optim_core.packed import PackedStep, settings
from orchestrator.definition.states import State
from orchestrator.storage import disk
from orchestrator.storage.object_store import StoreError
from orchestrator.trial import termination
from orchestrator.trial.job import Job, Report
from orchestrator.trial.session import LOOK_S, TrialSession
from orchestrator.trial.sessions import Session, session_of
from orchestrator.trial.watchdog import Watchdog
from orchestrator.trial.worker_group import WorkerGroup
from trainables.pack import Pack as Runs
from trainables.pack import at_once

OWN_IN_A_PACK = frozenset({"schedule", "warmup", "final_lr", "clip_norm"})
"""Recipe keys that may differ between the trials of a pack."""


class Crew:
    """`turn_to` sets the trials that it holds; `own_process` as in `TrialSession`."""

    def __init__(self, *, own_process: bool = False) -> None:
        self._own_process = own_process
        self._jobs: dict[str, Job] = {}
        self._sessions: dict[str, Session] = {}
        self._packs: list[Pack] = []
        self._most: int | None = None
        """Maximum number of trials in a pack, after memory ran out with more."""

    @property
    def trials(self) -> list[str]:
        """The trials that have not ended."""
        return list(self._jobs)

    def turn_to(self, jobs: Sequence[Job]) -> None:
        """Hold these trials from now on; trials that are no longer among them are released."""
        asked = {job.trial_id: job for job in jobs}
        self._leave([t for t in self._jobs if t not in asked])
        self._jobs = {**self._jobs, **{t: job for t, job in asked.items() if t not in self._jobs}}

    def advance(self, *, group: WorkerGroup | None = None, host: str = "127.0.0.1") -> list[Report]:
        """Train all for about a slice; at least one report while there are trials. Raises as `TrialSession.advance`.

        `group` and `host` are for trials with several processes.
        """
        reports: list[Report] = []
        while self._jobs and not reports:
            begun = [self._begin(job, group, host) for t, job in self._jobs.items() if t not in self._sessions]
            reports += [report for report in begun if report is not None]
            if not reports:
                alone = self._gather()
                for pack in list(self._packs):
                    reports += self._advance(pack)
                for trial_id in alone:
                    reports.append(self._advance_alone(self._sessions[trial_id]))
                    if reports[-1].state is State.FAILED:  # the driver may give up before all fail alike
                        break
            self._leave([report.trial_id for report in reports if report.done])
        return reports

    def close(self) -> None:
        """Release all trials."""
        self.turn_to(())

    def _begin(self, job: Job, group: WorkerGroup | None, host: str) -> Report | None:
        made = session_of(job, own_process=self._own_process, group=group, host=host)
        self._sessions[job.trial_id] = made
        return made.begin() if isinstance(made, TrialSession) and job.pack > 1 else None

    def _leave(self, trials: Sequence[str]) -> None:
        """Release trials; packs that had them are rebuilt from the remaining ones."""
        for trial_id in trials:
            del self._jobs[trial_id]
        for pack in [pack for pack in self._packs if not set(trials).isdisjoint(pack.trials)]:
            self._packs.remove(pack)
            pack.release(left=[t for t in pack.trials if t in self._jobs])
        for trial_id in trials:
            if (session := self._sessions.pop(trial_id, None)) is not None:
                session.close()

    def _gather(self) -> list[str]:
        """Pack trials that have no pack and fit together; returns those left alone."""
        packed = {t for pack in self._packs for t in pack.trials}
        kinds: dict[str, list[TrialSession]] = {}
        alone = []
        for trial_id, session in self._sessions.items():
            if trial_id in packed:
                continue
            job = self._jobs[trial_id]
            if isinstance(session, TrialSession) and job.pack > 1 and not job.alone and not session.changed:
                kinds.setdefault(_kind(session), []).append(session)
            else:
                alone.append(trial_id)
        for sessions in kinds.values():
            most = self._most or at_once(sessions[0].training, len(sessions))
            for members in [sessions[i : i + most] for i in range(0, len(sessions), most)]:
                ids = [s.job.trial_id for s in members]
                if len(members) == 1:
                    alone += ids
                    continue
                try:
                    self._packs.append(Pack(members, own_process=self._own_process))
                except Exception as broken:
                    self._apart(ids, broken)
                    alone += [t for t in ids if t in self._sessions]
        return alone

    def _advance_alone(self, session: Session) -> Report:
        if isinstance(session, TrialSession) and session.job.pack > 1 and session.stop_asked():
            return session.pause() or session.advance()
        return session.advance()

    def _advance(self, pack: Pack) -> list[Report]:
        try:
            return pack.advance()
        except Exception as broken:
            if disk.is_full(broken) or isinstance(broken, StoreError) or termination.told():
                raise
            self._packs.remove(pack)
            self._apart(pack.trials, broken)
            return []

    def _apart(self, trials: Sequence[str], broken: Exception) -> None:
        """Continue from the newest checkpoints, in smaller packs or individually."""
        memory = isinstance(broken, torch.OutOfMemoryError) and len(trials) > 2
        self._most = len(trials) // 2 if memory else self._most
        how = f"in packs of {self._most}" if memory else "alone"
        said = (str(broken).strip() or type(broken).__name__).splitlines()[0]
        warnings.warn(f"{len(trials)} trials could not be stepped together and continue {how}: {said}", stacklevel=2)
        for trial_id in trials:
            self._sessions.pop(trial_id).close()
            if not memory:
                self._jobs[trial_id] = replace(self._jobs[trial_id], alone=True)
        broken.__traceback__ = None  # the traceback holds the pack's memory
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()


class Pack:
    """Trials that are stepped together until one of them ends."""

    def __init__(self, sessions: Sequence[TrialSession], *, own_process: bool) -> None:
        self._sessions = list(sessions)
        self.trials = [session.job.trial_id for session in sessions]
        self._runs = Runs([session.training for session in sessions], PackedStep)
        for k, session in enumerate(self._sessions):
            session.pack = _Place(self._runs, k)
        first = sessions[0].job
        file = Path(tempfile.gettempdir()) / f"geosweep-pack-{first.trial_id}-{id(self)}.txt"
        self._watchdog = Watchdog(file, first.step_timeout_s, own_process=own_process)
        self._looked = time.perf_counter()

    def advance(self) -> list[Report]:
        """Train all until at least one has something to report. Raises what the joint step raises."""
        while True:
            began = time.perf_counter()
            try:
                outcome = self._runs.advance(self._pause)
            finally:
                self._watchdog.stop()
            self._spend(began)
            began = time.perf_counter()
            if outcome:
                scores = self._runs.scores([k for k, end in outcome.items() if end is None])
                heard = [
                    self._sessions[k].hear(
                        end if end is not None else partial(self._runs.point, k, scores.get(k)), measured=k in scores
                    )
                    for k, end in outcome.items()
                ]
            else:
                now = time.perf_counter()
                stopping = self._sessions[0].stop_asked()
                heard = [s.pause() for s in self._sessions if stopping or s.wants_checkpoint(now)]
            self._spend(began)
            reports = [report for report in heard if report is not None]
            if reports:
                return reports

    def release(self, left: Sequence[str]) -> None:
        """Give the remaining trials their own weights back."""
        if left:
            self._runs.release()
        for session in self._sessions:
            session.pack = None

    def _spend(self, began: float) -> None:
        """Charge every trial an equal share of the time."""
        share = (time.perf_counter() - began) / len(self._sessions)
        for session in self._sessions:
            session.spend(share)

    def _pause(self) -> bool:
        self._watchdog.beat()
        now = time.perf_counter()
        if now - self._looked < LOOK_S:
            return False
        self._looked = now
        return any(session.pause_asked() for session in self._sessions)


class _Place:
    """One trial's place in a pack (`held.Held`)."""

    def __init__(self, runs: Runs, k: int) -> None:
        self._runs, self._k = runs, k
        self.size = len(runs.runs)

    def state(self) -> dict[str, Any]:
        """See `Held`."""
        return self._runs.state(self._k)


def _kind(session: TrialSession) -> str:
    """What must be the same in all trials of a pack."""
    job = session.job
    recipe: Mapping[str, Any] = {k: v for k, v in job.training.items() if k not in OWN_IN_A_PACK}
    task = json.dumps([job.task, dict(job.task_parameters), recipe], sort_keys=True, default=repr)
    return f"{task} {settings(session.training.optimizer)}"  # type: ignore[arg-type]
