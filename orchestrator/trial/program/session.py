"""One trial that runs a script: start, read, stop, judge. The counterpart of `trial.session`.

The script runs independently; `advance` processes its output and reports about once per slice and at every rung. At a
rung the script is suspended until the executor continues, so that a stopped trial spends no more. If nobody continues
it for STOPPED_S there, or for ABANDONED_S elsewhere, or if the session is closed, its process ends with everything it
started.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from orchestrator.definition.program_keys import filled
from orchestrator.definition.states import State
from orchestrator.storage import disk
from orchestrator.storage.metric_log import MetricLog
from orchestrator.storage.object_store import StoreError
from orchestrator.trial.evaluations import evaluation, passed
from orchestrator.trial.failure import described, printable
from orchestrator.trial.job import Job, Report, Result
from orchestrator.trial.locking import locked
from orchestrator.trial.log_files import last_lines
from orchestrator.trial.program import command, ending, source, sources
from orchestrator.trial.program.channel import Channel, environment
from orchestrator.trial.program.kept import Kept
from orchestrator.trial.program.output import LONGEST_LINE, tail
from orchestrator.trial.program.points import Points
from orchestrator.trial.program.process import Script
from orchestrator.trial.program.proof import Shown
from orchestrator.trial.program.runs import Run, next_run, note
from orchestrator.trial.record import read_job, read_result, write_job, write_result
from orchestrator.trial.workspace import TrialPlace

ABANDONED_S, STOPPED_S, POLL_S, FILES_S, LEAVE_S = 600.0, 60.0, 0.05, 0.25, 30.0


class ProgramSession:
    """A script in progress, advanced in slices by any executor (see `trial.sessions.Session`)."""

    def __init__(self, job: Job) -> None:
        self.job, self._task = job, filled(job.task_parameters)
        self._place = TrialPlace(job.folder, job.stop_file)
        self._folder = self._place.folder
        with disk.named(self._folder):
            self._lock = locked(self._folder / "lock")
            self._place.fetch(own_log=True)
            if read_job(self._folder) is None:
                write_job(job, self._folder, durable=False)
                self._place.begun()
        self._log = MetricLog(self._folder / "metrics.jsonl")
        self._channel = Channel(self._folder / "script")
        self._kept = Kept(self._place, self._channel.folder, self._task)
        with disk.named(self._folder):
            self._kept.unpack()
        self._script: Script | None = None
        self._rows: deque[Mapping[str, float]] = deque()
        self._points = Points(self._log, job, self._task["step"])
        self._shown, self._code, self._facts = Shown(), "", dict[str, str]()
        self._seconds = 0.0
        self._looked = self._told = 0.0
        self._out_of_time = self._abandoned = self._frozen = False
        self._timer: threading.Timer | None = None
        self._reported = self._passed = 0
        self._run = Run(number=0)

    def advance(self) -> Report:
        """Let the script run for about a slice. Never raises for errors of the script, which give a FAILED result.

        Raises DiskFull when the disk is full, StoreError when the object store stays unavailable.
        """
        self._wanted()
        try:
            with disk.named(self._folder):
                return self._advance()
        finally:
            if self._script is not None and not self._script.over:
                self._timer = threading.Timer(STOPPED_S if self._frozen else ABANDONED_S, self._abandon)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """End the script with everything it started, and release the folder."""
        self._wanted()
        script, self._script = self._script, None
        if script is not None:
            script.end()
        self._place.close()
        self._lock.release()

    def _wanted(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _abandon(self) -> None:
        self._abandoned = True
        if self._script is not None:
            self._script.end()

    def _forsake(self) -> None:
        """Nobody continued the trial for so long that its script was ended: start it over."""
        if self._script is not None:
            self._script.end()
        self._script, self._abandoned, self._frozen = None, False, False

    def _advance(self) -> Report:
        existing = read_result(self._folder)
        if existing is not None:
            return self._ended(existing.state, existing.grad_evals, existing.metrics)
        try:
            if self._abandoned:
                self._forsake()
            if self._script is None:
                self._begin()
            elif self._frozen:
                self._script.thaw()
                self._frozen = False
            return self._slice()
        except Exception as broken:
            if disk.is_full(broken) or isinstance(broken, StoreError):
                raise
            return self._finish(State.FAILED, error=described(broken))

    def _begin(self) -> None:
        """Start the script for the first time or again."""
        job, task = self.job, self._task
        program = Path(job.program["folder"]) / task["program"]
        if not program.is_file():
            raise FileNotFoundError(f"{program}: no such file on this machine; every worker needs the script")
        self._code = source.digest_of_job(job)
        run = self._run = next_run(self._channel.folder, self._folder, task)
        self._shown = run.shown
        if run.fact:
            self._facts["runs"] = run.fact
        self._points.begin(run.up_to, again=run.number > 1)
        self._reported = self._passed = passed(self._points.all, job)
        note(self._channel.folder, run, 0.0, self._shown)
        given = command.Given(
            program=program,
            folder=self._folder,
            parameters=job.parameters,
            seed=job.seed,
            budget=job.budget,
            resume=run.resume,
            checkpoint=run.checkpoint,
        )
        words = command.line(task, given)
        everything = " ".join([*(task["command"] or ()), *filter(None, (task[f"{k}_arg"] for k in ("seed", "budget")))])
        self._shown.seed = bool(task["seed_arg"]) or "${seed}" in everything
        self._shown.budget = "given" if task["budget_arg"] or "${budget}" in everything else ""
        fill = {"${trial_dir}": str(self._folder), "${seed}": str(job.seed)}
        cwd = self._folder if task["cwd"] == "trial" else Path(job.program["folder"])
        self._sources = sources.all_of(task["metrics"] or (), cwd, fill)
        self._channel.open(
            {
                "parameters": dict(job.parameters),
                "seed": job.seed,
                "budget": job.budget,
                "unit": job.program["unit"],
                "optimizer": job.optimizer,
                "checkpoint_s": job.checkpoint_s,
                "trial_id": job.trial_id,
                "prove": task["prove"],
                "counts": run.counts,
            }
        )
        self._memory_kills = ending.memory_kills()
        self._since = time.perf_counter()
        self._script = Script(
            words,
            cwd=cwd,
            env=environment(self._channel.folder, threads=job.threads, given=task["env"]),
            logs=self._folder,
            token=str(self._folder.resolve()),
            heard=self._hear,
            grace=task["grace"],
        )

    def _hear(self, text: str) -> None:
        """Process a line of output, in the reader thread."""
        for one in self._sources:
            self._rows.extend(one.line(text[:LONGEST_LINE]))

    def _slice(self) -> Report:
        script, job = self._script, self.job
        assert script is not None
        began = time.perf_counter()
        while True:
            over = script.wait(POLL_S)
            now = time.perf_counter()
            self._seconds = now - self._since
            if over or now - self._looked >= FILES_S:
                self._looked = now
                self._take_in(last=over)
                note(self._channel.folder, self._run, self._seconds, self._shown)
                if not over:
                    self._kept.save(job.checkpoint_s, self._points.last)
            if over:
                return self._over()
            if self._place.stop_asked():
                return self._drained()
            self._check_limits()
            rung = next((r for r in job.rungs if self._reported < r <= self._passed), None)
            if rung is not None:
                script.freeze()
                self._frozen, self._reported = True, rung
                self._place.logged()
                return self._report(rung)
            if now - began >= job.slice_s:
                return self._report(max(self._reported, self._passed))

    def _report(self, number: int) -> Report:
        found = evaluation(self._points.all, self.job, number) if number in self.job.rungs else None
        self._reported = max(self._reported, number)
        return Report(
            trial_id=self.job.trial_id,
            grad_evals=self._spent(),
            metrics=dict(found.metrics) if found is not None else dict(self._points.metrics),
            seconds=self._run.seconds + self._seconds,
            evaluation=number,
            durable=-1.0,
            checkpoint_s=self.job.checkpoint_s,
        )

    def _take_in(self, *, last: bool) -> None:
        """Process points and proofs since the last call."""
        known = len(self._points.all)
        for said in self._channel.heard():
            self._shown.hear(said)
            if isinstance(said.get("metrics"), dict):
                row = {k: v for k, v in said["metrics"].items() if isinstance(v, int | float)}
                self._points.add(
                    {**row, **({"step": said["step"]} if said.get("step") is not None else {})}, bounded=False
                )
        bounded = self._shown.budget != "given" and self.job.program["unit"] != "seconds"
        for one in self._sources:
            for found in one.poll(last=last):
                self._points.add(found, bounded=bounded)
        while self._rows:
            self._points.add(self._rows.popleft(), bounded=bounded)
        if last:
            self._points.flush()
        counts = self._channel.counts()
        if len(self._points.all) != known or counts != (self._shown.grad_evals, self._shown.steps):
            self._told = time.monotonic()  # a sign of life, although it may print nothing
            self._passed = passed(self._points.all, self.job)
        self._shown.grad_evals, self._shown.steps = counts

    def _check_limits(self) -> None:
        """End a script that exceeds its budget or has been silent for too long."""
        assert self._script is not None
        limit, job = self.job.step_timeout_s, self.job
        if job.program["unit"] == "seconds":
            slack = 1.25 * job.budget + 5.0 if self._shown.budget == "given" else job.budget
            self._out_of_time |= self._run.seconds + self._seconds > slack
        if self._over_budget:
            self._shown.budget = "kept"
            self._script.end()
        elif limit is not None and time.monotonic() - max(self._script.spoke, self._told) > limit:
            self._facts["silent"] = f"{limit:g}"
            self._script.end()

    @property
    def _over_budget(self) -> bool:
        return self._out_of_time or self._points.over

    def _drained(self) -> Report:
        """The sweep is to stop: a cooperating script checkpoints and exits, any other is ended."""
        assert self._script is not None
        self._channel.ask_to_stop()
        if (self._channel.folder / "listens").exists():
            self._script.wait(LEAVE_S)
        self._script.end()
        self._take_in(last=True)
        note(self._channel.folder, self._run, self._seconds, self._shown)
        with contextlib.suppress(StoreError):  # the local files are kept and uploaded at the end
            self._place.logged()
            self._kept.save(0.0, self._points.last, last=True)
        return self._ended(State.INTERRUPTED, self._spent(), self._points.metrics)

    def _over(self) -> Report:
        """The script has ended."""
        assert self._script is not None
        if self._abandoned:
            self._forsake()
            return self._report(self._reported)
        name, how, job = self._task["program"], self._script.ended(), self.job
        values = self._points.values()
        left = how.told or (how.code == 0 and (self._channel.folder / "left").exists())
        if self._place.stop_asked() and left and not self._over_budget:
            return self._drained()
        self._facts |= ending.unusual(how, [row for one in self._sources for row in one.line(how.rest)], values)
        if "silent" in self._facts:
            message = f"{name} printed nothing for {self._facts['silent']} s (training.step_timeout) and was killed"
            return self._finish(State.FAILED, error=message)
        if self._points.beyond is not None and not values:
            unit = job.program["unit"]
            message = (
                f"{name} began at step {self._points.beyond:g}, beyond its budget of {job.budget:g} {unit}: name "
                "the field that counts them in task.step, or pass the budget with task.budget_arg"
            )
            return self._finish(State.FAILED, error=message)
        if job.optimizer and not self._shown.optimizer and (how.code == 0 or self._over_budget):
            message = (
                f"{name} trained without {job.optimizer}, the optimizer of its arm: build it with "
                "geosweep.trial().optimizer(model), or remove `optimizer` from the arm"
            )
            return self._finish(State.FAILED, error=message)
        if values and not math.isfinite(values[-1]):
            return self._finish(State.DIVERGED)
        if how.code == 0 or self._over_budget:
            return (
                self._finish(State.COMPLETE) if values else self._finish(State.FAILED, error=self._no_values(how.code))
            )
        killed = ending.memory_kills() > self._memory_kills
        return self._finish(State.FAILED, error=str(ending.words(name, how, self._folder, memory_killed=killed)))

    def _no_values(self, code: int | None) -> str:
        """The error of a script that ended well without ever reporting the tuned metric."""
        name, metric = self._task["program"], self.job.metric
        seen = sorted(self._points.metrics)
        told = f"it reported {', '.join(seen[:8])}" if seen else "it reported no metrics"
        elsewhere = sources.elsewhere(self._sources, tail(self._folder, "stderr"))
        troubles = [*(one.trouble() for one in self._sources), elsewhere, self._cut()]
        more = "; ".join(filter(None, [told, *troubles]))
        way = "make task.metrics find it, or report it with geosweep.trial().report(step, ...)"
        return (
            f"{name} ended with exit code {code or 0} without reporting {metric}, which the sweep tunes: {more}; {way}"
        )

    def _cut(self) -> str:
        return f"its last report was cut off: {self._channel.cut[:80]!r}" if self._channel.cut else ""

    def _spent(self) -> float:
        """The part of the budget spent, in its unit, as far as is known."""
        job = self.job
        if job.program["unit"] == "seconds":
            return self._run.seconds + self._seconds
        if counted := self._shown.document().get(job.program["unit"]):  # grad_evals, steps
            return float(counted)
        return self._points.last

    def _finish(self, state: State, *, error: str = "") -> Report:
        script = self._script
        if script is not None and not script.over:
            script.end()
        job, values = self.job, self._points.values()
        metrics, value = dict(self._points.metrics), None
        if state is State.COMPLETE:
            value = job.goal.best(values) if job.select == "best" else values[-1]
        elif state is State.DIVERGED:
            value = metrics[job.metric] = float(job.program["worst"])
        proof = self._shown.document(self._points.told)
        if self._shown.unread:
            self._facts["unread"] = ", ".join(self._shown.unread)
        metrics |= {f"cost/{name}": float(proof[name]) for name in ("grad_evals", "steps") if proof[name]}
        result = Result(
            state=state,
            value=value,
            metrics={k: v for k, v in metrics.items() if math.isfinite(v)},
            grad_evals=self._spent(),
            seconds=round(self._run.seconds + self._seconds, 4),
            init_digest=self._shown.init,
            data_digest=self._shown.data,
            error=printable(error),
            last_lines=last_lines(str(self._folder))
            if error and "\n" not in error
            else "",  # otherwise the error contains them
            facts={k: v for k, v in self._facts.items() if k in ("runs", "left", "unread", "rest")},
            code=self._code,
            proof=proof,
        )
        self._place.settle()
        self._log.sync()
        write_result(result, self._folder)
        for old in self._channel.folder.glob("checkpoint*"):
            old.unlink()
        self._place.ended()
        return self._ended(state, result.grad_evals, result.metrics)

    def _ended(self, state: State, spent: float, metrics: Mapping[str, float]) -> Report:
        self.close()
        return Report(
            trial_id=self.job.trial_id,
            grad_evals=spent,
            metrics=dict(metrics),
            seconds=self._run.seconds + self._seconds,
            durable=-1.0 if state.is_resumable else math.inf,
            done=True,
            state=state,
        )
