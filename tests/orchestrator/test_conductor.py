"""The conductor alone, with reports made by hand: the order of trials, what a next driver does, stops, limits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import runner
from orchestrator.definition import sweep_file
from orchestrator.definition.counts import Counts, total
from orchestrator.definition.states import State
from orchestrator.display import summary_line
from orchestrator.scheduling.conductor import SweepConductor
from orchestrator.scheduling.studies import open_arms
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial.job import Job, Report, Result
from orchestrator.trial.record import TrialRecord, read_result
from tests.orchestrator.sweep_files import sweep_text

VALUES = {0: 0.5, 1: 0.2, 2: 0.9}
"""Configuration -> its loss: the second one is the best of each arm."""
ALL = {f"{arm}-{n:04d}-s0" for arm in ("sgd", "adamw") for n in VALUES} | {
    f"{arm}-0001-s{seed}" for arm in ("sgd", "adamw") for seed in (1000, 1001)
}


class Notes:
    """What the conductor tells its callbacks."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def on_start(self, job: Job) -> None:
        self.told.append(("start", job.trial_id))

    def on_report(self, job: Job, report: Report) -> None:
        self.told.append(("report", job.trial_id))

    def on_end(self, job: Job, result: Result | Report) -> None:
        self.told.append((str(result.state), job.trial_id))

    def on_recover(self, job: Job, result: Result) -> None:
        self.told.append(("recover", job.trial_id))


class Driver:
    """A conductor over a sweep's folder, and somebody who trains what it hands out in no time."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = lambda: 0.0, **changes: Any) -> None:
        text = sweep_text(**{"method": "random", "trials": 3, "confirm": 2, **changes})
        spec = sweep_file.loads(text, "test.yaml")
        self.folder: SweepFolder = runner.open_folder(spec, text, root, {})
        self.folder.stop_file.unlink(missing_ok=True)  # as holding the folder does
        self.notes = Notes()
        arms = open_arms(spec, self.folder, None)
        self.conductor = SweepConductor(spec, self.folder, arms, callbacks=(self.notes,), clock=clock)

    def next(self) -> Job:
        job = self.conductor.next_job()
        assert job is not None
        return job

    def end(self, job: Job, *, state: State = State.COMPLETE) -> bool:
        """The trial ends; what `on_report` says."""
        failed = state is State.FAILED
        metrics = {} if failed else {"loss/val": VALUES[job.configuration]}
        result = Result(
            state=state,
            value=metrics.get("loss/val"),
            metrics=metrics,
            grad_evals=job.budget,
            seconds=1.0,
            error="Traceback" if failed else "",
        )
        TrialRecord(job=job, result=result).write(self.folder.trial(job.trial_id))
        return self.conductor.on_report(
            Report(trial_id=job.trial_id, grad_evals=job.budget, metrics=metrics, done=True, state=state)
        )

    def train(self, most: int = 100, state: Callable[[Job], State] = lambda job: State.COMPLETE) -> list[Job]:
        """Train trials one after another, at most so many."""
        trained = list[Job]()
        while len(trained) < most and (job := self.conductor.next_job()) is not None:
            assert not self.end(job, state=state(job))
            trained.append(job)
        return trained

    @property
    def counts(self) -> Counts:
        """Trials of all arms."""
        return total(arm.counts() for arm in self.conductor.arms.values())


def test_arms_take_turns_and_the_best_of_each_is_confirmed(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    assert driver.conductor.remaining == 10
    jobs = driver.train()
    search, confirm = jobs[:6], jobs[6:]
    assert {job.trial_id for job in jobs} == ALL
    assert len(jobs) == len(ALL)
    for number in range(3):
        assert {job.arm for job in search[2 * number : 2 * number + 2]} == {"sgd", "adamw"}
        assert {job.configuration for job in search[2 * number : 2 * number + 2]} == {number}
    assert all(job.stage == "confirm" and job.configuration == 1 for job in confirm)
    for job in confirm:
        of = next(one for one in search if one.arm == job.arm and one.configuration == 1)
        assert job.parameters == of.parameters
    assert driver.conductor.exhausted
    assert driver.conductor.remaining == 0
    assert driver.conductor.grad_evals == 10 * 40
    assert driver.conductor.stopped_by == driver.conductor.limit == ""
    assert driver.notes.told == [(word, job.trial_id) for job in jobs for word in ("start", "COMPLETE")]


def test_nothing_is_confirmed_while_a_search_of_the_arm_runs(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    jobs = [driver.next() for _ in range(6)]
    assert driver.conductor.next_job() is None
    assert not driver.conductor.exhausted
    *early, last = sorted(jobs, key=lambda job: job.arm == "sgd")
    for job in early:
        driver.end(job)
    other = "sgd" if last.arm == "adamw" else "adamw"
    assert {driver.next().arm for _ in range(2)} == {other}
    assert driver.conductor.next_job() is None
    driver.end(last)
    assert {driver.next().trial_id for _ in range(2)} == {f"{last.arm}-0001-s1000", f"{last.arm}-0001-s1001"}


def test_reports_on_the_way_are_passed_on(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    job = driver.next()
    assert driver.conductor.on_report(Report(trial_id=job.trial_id, grad_evals=10.0, metrics={"loss/val": 1.0}))
    assert driver.conductor.grad_evals == 10.0
    assert driver.conductor.on_report(Report(trial_id=job.trial_id, grad_evals=30.0, metrics={"loss/val": 0.7}))
    assert driver.conductor.grad_evals == 30.0, "what is reported is all that the trial has spent"
    assert [word for word, _ in driver.notes.told] == ["start", "report", "report"]


@pytest.mark.parametrize("ended", [0, 1, 3, 6, 7, 9, 10])
def test_the_next_driver_begins_with_what_was_left_lying(tmp_path: Path, ended: int) -> None:
    """Wherever the first one dies, with up to two trials in hand: each trial ends once, with the same configuration."""
    first = Driver(tmp_path)
    done = first.train(ended)
    lying = [job for job in (first.conductor.next_job(), first.conductor.next_job()) if job is not None]
    second = Driver(tmp_path)
    assert second.notes.told == [("recover", trial) for _, trial in second.notes.told]
    assert {trial for _, trial in second.notes.told} == {job.trial_id for job in done}
    assert second.conductor.spent_before == 40 * ended
    again = second.train()
    assert {job.trial_id for job in again[: len(lying)]} == {job.trial_id for job in lying}
    assert {job.trial_id: job.parameters for job in again[: len(lying)]} == {
        job.trial_id: job.parameters for job in lying
    }
    assert {job.trial_id for job in [*done, *again]} == ALL
    assert len(done) + len(again) == len(ALL)
    assert second.conductor.exhausted


def test_a_drained_sweep_hands_out_nothing_and_is_taken_up(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    first, second = driver.next(), driver.next()
    driver.folder.ask_to_stop()
    assert driver.conductor.next_job() is None
    assert driver.conductor.stopped_by == "stop"
    assert not driver.conductor.exhausted, "two trials still write their checkpoints"
    half = Report(trial_id=first.trial_id, grad_evals=20.0, done=True, state=State.INTERRUPTED)
    assert not driver.conductor.on_report(half)
    driver.end(second)
    assert driver.conductor.exhausted
    assert driver.counts == Counts(done=1, waiting=9)
    assert ("INTERRUPTED", first.trial_id) in driver.notes.told
    later = Driver(tmp_path)
    jobs = later.train()
    assert jobs[0].trial_id == first.trial_id
    assert {job.trial_id for job in jobs} == ALL - {second.trial_id}


def test_a_trial_that_saw_the_flag_first_drains_the_sweep(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    job = driver.next()
    driver.conductor.on_report(Report(trial_id=job.trial_id, grad_evals=4.0, done=True, state=State.INTERRUPTED))
    assert driver.folder.stop_file.exists()
    assert driver.conductor.next_job() is None


def test_a_failed_trial_is_no_value(tmp_path: Path) -> None:
    """The best configuration of one arm fails: the next best is confirmed, and no budget is given back."""
    driver = Driver(tmp_path)

    def state(job: Job) -> State:
        return State.FAILED if (job.arm, job.configuration) == ("sgd", 1) else State.COMPLETE

    jobs = driver.train(state=state)
    assert {job.configuration for job in jobs if job.stage == "confirm" and job.arm == "sgd"} == {0}
    assert {job.configuration for job in jobs if job.stage == "confirm" and job.arm == "adamw"} == {1}
    assert driver.counts == Counts(done=9, failed=1)


def test_an_arm_that_only_fails_confirms_nothing(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    jobs = driver.train(state=lambda job: State.FAILED if job.arm == "sgd" else State.COMPLETE)
    assert [job.arm for job in jobs if job.stage == "confirm"] == ["adamw", "adamw"]
    assert driver.conductor.exhausted
    assert driver.counts.failed == 3


def test_a_trial_whose_workers_die_is_given_up_with_its_reason(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    job = driver.next()
    driver.conductor.on_lost(job.trial_id, "its worker died 3 times")
    result = read_result(driver.folder.trial(job.trial_id))
    assert result is not None
    assert (result.state, result.value, result.error) == ("FAILED", None, "its worker died 3 times")
    assert driver.notes.told[-1] == ("FAILED", job.trial_id)
    assert len(driver.train()) == 9


def test_the_wall_clock_drains_and_what_was_spent_before_counts(tmp_path: Path) -> None:
    now = [0.0]
    driver = Driver(tmp_path / "a", clock=lambda: now[0], wall_clock=", wall_clock: 60s")
    driver.train(2)
    job = driver.next()
    now[0] = 60.0
    assert driver.conductor.next_job() is None
    assert (driver.conductor.stopped_by, driver.conductor.limit) == ("budget", "wall_clock")
    assert driver.folder.stop_file.exists()
    driver.end(job)
    driver.folder.add_seconds(driver.conductor.seconds)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    later = Driver(tmp_path / "b", clock=lambda: now[0], wall_clock=", wall_clock: 60s")
    assert later.conductor.seconds == 60.0
    assert later.conductor.next_job() is None
    more = Driver(tmp_path / "a", clock=lambda: now[0], wall_clock=", wall_clock: 90s")
    assert len(more.train()) == 7
    assert more.conductor.seconds == 60.0, "time down does not count"


def test_time_without_workers_is_not_charged_and_has_a_limit_of_its_own(tmp_path: Path) -> None:
    """Quota, queue and machines that are late: the wall clock stands still, and a retry has all of it left."""
    now = [0.0]
    limits = {"wall_clock": ", wall_clock: 60s", "extra": "resources: {wait: 100s}\n"}
    driver = Driver(tmp_path, clock=lambda: now[0], **limits)
    conductor = driver.conductor
    conductor.on_workers(0)
    now[0] = 90.0
    job = driver.next()
    assert (conductor.seconds, conductor.waited, conductor.stopped_by) == (0.0, 90.0, "")
    reasons = {row.reason for row in conductor.waiting().values()}
    assert reasons == {"waiting for workers for 1:30, not charged"}
    assert "waiting for workers for 1:30, not charged" in summary_line(conductor)
    conductor.on_workers(1)
    now[0] = 100.0
    driver.end(job)
    conductor.on_workers(2)
    conductor.on_workers(0)
    now[0] = 199.0
    assert (conductor.seconds, conductor.waited) == (10.0, 99.0), "each stretch is measured by itself"
    job = driver.next()
    now[0] = 200.0
    assert conductor.draining
    assert (conductor.stopped_by, conductor.limit) == ("wait", "")
    assert not conductor.exhausted
    assert driver.counts == Counts(done=1, running=1, waiting=8)
    conductor.give_back(job.trial_id)
    assert conductor.exhausted
    assert driver.counts == Counts(done=1, waiting=9)
    assert driver.notes.told[-1] == ("INTERRUPTED", job.trial_id)
    driver.folder.add_seconds(conductor.seconds)
    later = Driver(tmp_path, clock=lambda: now[0], **limits)
    later.conductor.on_workers(0)
    now[0] += 99.0
    later.conductor.on_workers(1)
    assert later.conductor.seconds == 10.0
    assert len(later.train()) == 9, "none is lost, and the time is not spent"


@pytest.mark.parametrize(("limit", "rounds"), [(10, 3), (9, 2), (8, 2), (7, 1), (6, 1)])
def test_a_limit_ends_all_searches_alike_and_keeps_the_confirm_trials(tmp_path: Path, limit: int, rounds: int) -> None:
    """Of so many whole trials: four are kept for the confirm stage, and rounds of two go on while they fit."""
    driver = Driver(tmp_path, wall_clock=f", grad_evals: {40 * limit}")
    jobs = driver.train()
    search = [job for job in jobs if job.stage == "tune"]
    assert [sum(job.arm == arm for job in search) for arm in ("sgd", "adamw")] == [rounds, rounds]
    assert len(jobs) - len(search) == 4
    assert driver.conductor.grad_evals <= 40 * limit
    assert driver.conductor.limit == ("grad_evals" if rounds < 3 else "")
    assert driver.conductor.exhausted
