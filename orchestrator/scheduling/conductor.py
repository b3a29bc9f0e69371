"""Decides which trial comes next: unfinished ones, then the search of each arm in turn, then its confirm seeds.

Its whole state can be rebuilt from the studies and the trial folders, so a driver that is killed loses nothing: the
next one tells what was trained but not told, and restarts what was asked but not trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from orchestrator.definition.model import Spec
from orchestrator.definition.states import ConfigurationState, Stage, State
from orchestrator.scheduling import exploit
from orchestrator.scheduling.arm_study import ArmStudy, Outcome, study_name
from orchestrator.scheduling.audit import is_audited, logical_result, rung_values, take_rungs
from orchestrator.scheduling.budget import Ledger
from orchestrator.scheduling.callbacks import Callback, Callbacks
from orchestrator.scheduling.confirm import ConfirmStage
from orchestrator.scheduling.jobs import job_of, objectives_of
from orchestrator.scheduling.stopping import Stop
from orchestrator.scheduling.training_time import IdleTime, TrainingTime, over
from orchestrator.scheduling.waiting import waiting
from orchestrator.search.base import Configuration
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.waiting import Waiting
from orchestrator.trial import log_files
from orchestrator.trial.job import Job, Report, Result
from orchestrator.trial.record import TrialRecord, read_result


class SweepConductor:
    """The conductor of one sweep (see `executors.base.Conductor`)."""

    def __init__(
        self,
        spec: Spec,
        folder: SweepFolder,
        arms: Mapping[str, ArmStudy],
        *,
        callbacks: Iterable[Callback] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec, self.folder, self.arms = spec, folder, dict(arms)
        self.stopped_by = ""
        """Why no further trial starts although some are left: empty, `budget`, `stop`, or `wait` (no worker came)."""
        self.limit = ""
        """The budget limit that ended the search, or the whole sweep."""
        self.workers = 1
        """Workers that the executor can run concurrently."""
        self._ledger = Ledger(spec)
        self._confirmation = ConfirmStage(spec, folder, self.arms)
        self._callbacks = Callbacks(callbacks)
        self._time, self._idle = TrainingTime(folder.seconds(), clock), IdleTime(clock)
        self._jobs: dict[str, Job] = {}
        self._running: set[str] = set()
        self._paused_with: dict[str, Report] = {}  # trials waiting for their population
        self._waiting_results: dict[str, list[Job]] = {}  # ended before strict replay could judge their rungs
        self.pace_from: float | None = None
        """When this driver's first worker got a trial, on the clock of `time.monotonic`."""
        for arm in self.arms.values():
            self._recover(arm)
        self._cap()
        self.spent_before = self.grad_evals
        """Gradient evaluations spent before this driver."""

    @property
    def seconds(self) -> float:
        """Wall clock spent on this sweep, excluding downtime and time without workers."""
        return self._time.seconds

    @property
    def waited(self) -> float:
        """Seconds since there was a worker, or since the start if there was none; 0 while there is one."""
        return self._time.waited

    @property
    def idle_s(self) -> float:
        """Worker-seconds lost to strict replay (see `IdleTime`)."""
        return self._idle.seconds

    @property
    def draining(self) -> bool:
        """Whether no further trial starts, even if some are left."""
        if not self.stopped_by and (why := over(self._time, self.spec, self.folder)):
            self.stopped_by, self.limit = why, "wall_clock" if why == "budget" else self.limit
            self.folder.stop_file.touch()
        return bool(self.stopped_by)

    @property
    def grad_evals(self) -> float:
        """Gradient evaluations spent by all trials."""
        return sum(arm.grad_evals for arm in self.arms.values())

    @property
    def remaining(self) -> int:
        """Trials still to be started."""
        return sum(arm.counts().waiting for arm in self.arms.values())

    @property
    def exhausted(self) -> bool:
        """Whether no more trials will start and none is running."""
        return not self._running and (self.draining or not any(a.queue or a.wants for a in self.arms.values()))

    def next_job(self, like: Job | None = None) -> Job | None:
        """Unfinished trials first, then studies in turn; with limited effort, the one that has begun the fewest."""
        if self.draining:
            return None
        self._cap()
        wanting = [arm for arm in self.arms.values() if arm.queue or arm.wants]
        ready = [arm for arm in wanting if arm.queue or not arm.held_by_order()]
        self._idle.on_idle(self.workers - len(self._running) if wanting and not ready else 0)
        if like is not None and not self._ledger.limits:
            ready = [arm for arm in ready if arm is self._of(like)]
        if not ready:
            return None
        arm = min(ready, key=lambda a: len(a.states))
        if not arm.queue:
            self._issue(arm, arm.ask())
        job = arm.queue.popleft()
        arm.move(job.trial_id, State.RUNNING)
        self._jobs[job.trial_id] = job
        self._running.add(job.trial_id)
        self._callbacks.on_start(job)
        return job

    def on_workers(self, count: int) -> None:
        """Number of workers that are up: the clock runs from the first one on, and stops while there are none."""
        self._time.on_workers(count)
        if count:
            self.pace_from = self.pace_from or time.monotonic()

    def give_back(self, trial_id: str) -> None:
        """Requeue a trial that no worker has or will get."""
        job = self._jobs[trial_id]
        arm = self._of(job)
        self._running.discard(trial_id)
        arm.move(trial_id, State.INTERRUPTED)
        spent = arm.spent.get(trial_id, 0.0)
        self._callbacks.on_end(job, Report(trial_id=trial_id, grad_evals=spent, done=True, state=State.INTERRUPTED))

    def on_report(self, report: Report) -> bool:
        """Forward progress; judge at rungs; record and tell an end. False if the trial is to stop now."""
        job = self._jobs[report.trial_id]
        arm = self._of(job)
        self.folder.hear(job.trial_id, report.durable, new=report.done or report.evaluation in job.rungs)
        arm.spend(job.trial_id, report.grad_evals)
        if report.state is State.PAUSED:
            self._paused(arm, job, report)
            return False
        if report.done:
            self._ended(arm, job, report)
            return False
        self._callbacks.on_report(job, report)
        if report.evaluation in job.rungs and job.stage is Stage.TUNE and arm.stopper is not None:
            arm.stopper.record(job.configuration, report.evaluation, report.metrics[job.metric])
            self._judge(arm)
        stop = arm.stopped.get(job.configuration)
        if stop is None or job.stage is not Stage.TUNE or is_audited(self.spec, job.trial_id):
            return True
        if report.evaluation < stop.rung:  # a resumed trial that has not reached its rung again
            return True
        self._stop(arm, job, stop, report)
        return False

    def on_lost(self, trial_id: str, why: str) -> None:
        """Give up a trial as FAILED."""
        job = self._jobs[trial_id]
        lost = Result(state=State.FAILED, value=None, metrics={}, grad_evals=0.0, seconds=0.0, error=why)
        self._write(job, replace(lost, last_lines=log_files.last_lines(job.folder)))
        self.on_report(Report(trial_id=trial_id, grad_evals=0.0, done=True, state=State.FAILED))

    def waiting(self) -> dict[str, Waiting]:
        """Arm -> how many trials of all its studies wait, and why."""
        racing, running = self._confirmation.racing, len(self._running)
        return waiting(self.arms.values(), self.waited, stopped_by=self.stopped_by, racing=racing, running=running)

    def _judge(self, arm: ArmStudy) -> None:
        """Apply the stopping rule's decisions; close configurations that were only waiting for them."""
        assert arm.stopper is not None
        for stop in list(arm.stopper.decisions()):
            arm.stopped[stop.number] = stop
        for job in [j for j in self._waiting_results.get(arm.name, []) if not self._undecided(arm, j)]:
            self._waiting_results[arm.name].remove(job)
            result = read_result(self.folder.trial(job.trial_id))
            assert result is not None
            self._finish(arm, job, result)

    def _paused(self, arm: ArmStudy, job: Job, report: Report) -> None:
        """The trial has reached the evaluation at which its population decides."""
        assert arm.population is not None
        self._running.discard(job.trial_id)
        arm.move(job.trial_id, State.PAUSED)
        arm.population.paused[job.configuration] = report.metrics[job.metric]
        self._paused_with[job.trial_id] = report
        self._callbacks.on_end(job, report)
        self._exploit(arm)

    def _exploit(self, arm: ArmStudy) -> None:
        """Once a whole population has paused or ended, replace the worst with children of the best."""
        seed = arm.tune[0]
        decided = None if arm.wants else exploit.propose(arm, self.folder, seed)
        if decided is None:
            return
        for stop in [s for s in decided.stops if s.number not in arm.outcomes]:
            trial_id = arm.trial_id(stop.number, seed)
            self._stop(arm, self._jobs[trial_id], stop, self._paused_with[trial_id])
        self._paused_with = {t: r for t, r in self._paused_with.items() if self._of(self._jobs[t]) is not arm}
        for configuration in exploit.settle(arm, decided):
            arm.queue.append(self._job(arm, configuration, seed, Stage.TUNE))

    def _undecided(self, arm: ArmStudy, job: Job) -> bool:
        return arm.stopper is not None and job.stage is Stage.TUNE and arm.stopper.undecided(job.configuration)

    def _ended(self, arm: ArmStudy, job: Job, report: Report) -> None:
        self._running.discard(job.trial_id)
        result = read_result(self.folder.trial(job.trial_id))
        if result is None:  # drained with a checkpoint; it may have seen the stop flag before this driver did
            self.folder.stop_file.touch()
            arm.move(job.trial_id, report.state)
            self._callbacks.on_end(job, report)
            return
        self._ledger.trained(result)
        if arm.stopper is not None and job.stage is Stage.TUNE:
            take_rungs(self.folder, arm, job)
            arm.stopper.end(job.configuration)
            self._judge(arm)
        if self._undecided(arm, job):
            self._waiting_results.setdefault(arm.name, []).append(job)
            return
        self._finish(arm, job, result)
        if arm.stopper is not None:
            self._judge(arm)
        self._exploit(arm)

    def _finish(self, arm: ArmStudy, job: Job, result: Result) -> None:
        """Record the final end of a trial."""
        stop = arm.stopped.get(job.configuration)
        if stop is not None and job.stage is Stage.TUNE and result.state.is_trained:
            result = logical_result(self.folder, job, stop, result)
        self._close(arm, job, result)

    def _stop(self, arm: ArmStudy, job: Job, stop: Stop, report: Report) -> None:
        """End a trial that does not continue beyond its last report."""
        seen = Result(state=State.PRUNED, value=None, metrics={}, grad_evals=report.grad_evals, seconds=report.seconds)
        result = logical_result(self.folder, job, stop, seen)
        self._ledger.trained(result)
        self._close(arm, job, result)

    def _close(self, arm: ArmStudy, job: Job, result: Result) -> None:
        if result.state is State.PRUNED:
            self._write(job, result)
            arm.spend(job.trial_id, result.grad_evals)
            if arm.stopper is not None:
                arm.stopper.end(job.configuration)
        self._running.discard(job.trial_id)
        arm.move(job.trial_id, result.state)
        self._record(arm, job, result)
        self._maybe_confirm(arm)
        self._callbacks.on_end(job, result)

    def _write(self, job: Job, result: Result) -> None:
        """Write the end of a trial from the driver."""
        TrialRecord(job=job, result=result).write(self.folder.trial(job.trial_id))
        self.folder.publish(job.trial_id)

    def _cap(self) -> None:
        """End all searches at the same number once another round would not leave the confirm reserve."""
        searching = [arm for arm in self.arms.values() if arm.wants]
        if not searching or not self._ledger.limits or len({a.asked for a in searching}) > 1:
            return  # a round that has begun is finished
        begun = [self._jobs[t] for t in (*self._running, *self._paused_with)]
        done = sum(j.inherited + self._of(j).spent.get(j.trial_id, 0.0) for j in begun)
        left = sum(j.budget for j in begun) - done
        queued = sum(j.budget for arm in self.arms.values() for j in arm.queue)
        further = sum(len(arm.tune) * arm.each for arm in searching)
        reserve = self._confirmation.reserve()
        spent = self._ledger.spent(grad_evals=self.grad_evals, seconds=self.seconds)
        needs = self._ledger.needs(left + queued + further + reserve, max(1, len(self._running)))
        self.limit = self._ledger.exceeded(spent, needs)
        if self.limit:
            for arm in self.arms.values():
                arm.cap()
                self._exploit(arm)
                self._maybe_confirm(arm)

    def _issue(self, arm: ArmStudy, configuration: Configuration) -> None:
        """Queue the trials of a configuration; with a stopping rule, its other seeds wait until the first survives."""
        arm.values[configuration.number] = {}
        for seed in arm.tune[:1] if arm.stopper is not None else arm.tune:
            arm.queue.append(self._job(arm, configuration, seed, Stage.TUNE))

    def _job(self, arm: ArmStudy, configuration: Configuration, seed: int, stage: Stage) -> Job:
        until = arm.population.until if arm.population is not None and stage is Stage.TUNE else 0
        return job_of(self.spec, self.folder, arm.spec, configuration, seed, stage, until, arm.index)

    def _of(self, job: Job) -> ArmStudy:
        return self.arms[study_name(job.arm, self.spec.seeds.index(job.study))]

    def _recover(self, arm: ArmStudy) -> None:
        """Resume from the study and the trial folders: unfinished trials go to the head of the queue."""
        for configuration in arm.study.configurations():
            number = configuration.number
            if configuration.replaces is not None:
                arm.welcome(number)
            if arm.is_fresh(configuration):
                continue  # starts once the decision is carried out
            arm.values[number] = {}
            if arm.stopper is not None:
                arm.stopper.begin(number)
            for seed in arm.tune[:1] if arm.stopper is not None else arm.tune:
                self._take_up(arm, self._job(arm, configuration, seed, Stage.TUNE))
        if arm.stopper is not None:
            self._judge(arm)
        if arm.study.chosen() is not None and not arm.confirming:
            arm.cap()
            self._confirm(arm)
        else:
            self._maybe_confirm(arm)

    def _take_up(self, arm: ArmStudy, job: Job) -> None:
        result = read_result(self.folder.trial(job.trial_id))
        if result is None:
            if arm.stopper is not None and job.stage is Stage.TUNE:
                take_rungs(self.folder, arm, job)
            arm.queue.append(job)
            return
        arm.move(job.trial_id, result.state)
        arm.spend(job.trial_id, result.grad_evals)
        self._jobs[job.trial_id] = job
        self._ledger.trained(result)
        if arm.stopper is not None and job.stage is Stage.TUNE:
            stop = result.stopped.rung if result.stopped is not None else None
            take_rungs(self.folder, arm, job, stop)
            arm.stopper.end(job.configuration)
            if stop is not None or arm.lag is None:
                arm.stopper.settled(job.configuration, stop)
            if self._undecided(arm, job):
                self._waiting_results.setdefault(arm.name, []).append(job)
                return
        stopped = result.stopped
        if arm.population is not None and stopped is not None and stopped.rung == arm.population.until:
            arm.population.paused[job.configuration] = stopped.value  # the decision has not been carried out
        self._record(arm, job, result)
        self._callbacks.on_recover(job, result)

    def _record(self, arm: ArmStudy, job: Job, result: Result) -> None:
        """Store a tune trial's values; settle its configuration when all its seeds are in or one was stopped."""
        if job.stage is not Stage.TUNE:
            self._confirmation.ended(arm, job.seed, result.value)
            self._look()
            return
        number, tune = job.configuration, arm.tune
        broken = arm.measured(number, job.seed, result.metrics, self.spec.outcome_constraints)
        if result.stopped is not None:
            at = result.stopped.rung
            passed = {r: v for r, v in rung_values(self.folder, job).items() if r <= at}
            arm.planned -= len(tune) - 1
            rungs = {**passed, at: result.stopped.value}
            arm.settle(number, Outcome(state=ConfigurationState.PRUNED, rungs=rungs, broken=broken))
            return
        values = arm.values[number]
        values[job.seed] = objectives_of(self.spec, result)
        if arm.stopper is not None and job.seed == tune[0] and len(tune) > 1 and values[job.seed] is not None:
            configuration = arm.configuration(number)
            for seed in tune[1:]:
                self._take_up(arm, self._job(arm, configuration, seed, Stage.TUNE))
        if len(values) < len(tune):
            return
        passed = rung_values(self.folder, job) if len(tune) == 1 else {}
        arm.average(number, passed, self.spec, broken)

    def _maybe_confirm(self, arm: ArmStudy) -> None:
        """Once every configuration of the arm is settled, train its best one on the fresh seeds."""
        if arm.confirming or arm.asked < arm.trials or len(arm.outcomes) < arm.asked:
            return
        arm.flush()
        best = self._confirmation.best_of(arm)
        if best is None:
            self._confirmation.nothing(arm)
            self._look()
            return
        arm.study.choose(best)
        self._confirm(arm)

    def _confirm(self, arm: ArmStudy) -> None:
        self._take_up_confirm(arm, self._confirmation.begin(arm))
        self._look()

    def _look(self) -> None:
        for name, seeds in self._confirmation.look().items():
            self._take_up_confirm(self.arms[name], seeds)

    def _take_up_confirm(self, arm: ArmStudy, seeds: list[int]) -> None:
        number = arm.study.chosen()
        assert number is not None
        configuration = arm.configuration(number)
        for seed in seeds:
            self._take_up(arm, self._job(arm, configuration, seed, Stage.CONFIRM))
