"""Which faults of workers are held against a trial, and after how many; the texts are Ray 2.60's own (tests/faults)."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import RayActorError, RayTaskError

from orchestrator.definition.states import Goal, Stage
from orchestrator.executors.ray_faults import BYSTANDER_REPEATS, REPEATS, Attempts, WorkerLost, fault_of
from orchestrator.storage.disk import DiskFull
from orchestrator.trial.job import Job

NODE = RayActorError(error_msg="The actor died because its node has died. Node Id: 12ab")
DIED = RayActorError(error_msg="The actor is dead because its worker process has died.\n\tpid: 77")
MEMORY = """2 worker(s) were killed due to the node running low on memory. 4.00GB used / 23.54GB limit
OOM kill reason: exceeded
Object store memory usage: [- objects spillable: 0]
Selected to kill: (Actor(aa): job ID=01, required resources={CPU: 1}, pid=42, actual memory used=0.06GB, worker ID=4a)
Selected to kill: (Actor(bb): job ID=01, required resources={CPU: 1}, pid=43, actual memory used=2.10GB, worker ID=8a)
"""


def job(folder: Path) -> Job:
    return Job(
        trial_id="t", arm="a", stage=Stage.TUNE, configuration=0, seed=0, optimizer="sgd", parameters={}, task="x",
        task_parameters={}, budget=1, evaluations=1, metric="m", goal=Goal.MINIMIZE, select="last", folder=str(folder),
        stop_file="stop",
    )  # fmt: skip


def times(folder: Path, error: Exception) -> int:
    """How often the trial meets the fault until it is given up."""
    attempts = Attempts(folder)
    return next(n for n in range(1, 99) if attempts.give_up(job(folder), error)[1])


def crash_report(logs: Path) -> None:
    folder = logs / "session_2026" / "logs"
    folder.mkdir(parents=True)
    words = ":job_id:1", "UserWarning: hot", "Fatal Python error: Segmentation fault", "Extension modules: a lot"
    (folder / "worker-1-2-77.err").write_text("\n".join(words))


def test_a_node_and_a_bystander_are_forgiven_longer(tmp_path: Path) -> None:
    assert times(tmp_path, DIED) == BYSTANDER_REPEATS
    crash_report(tmp_path)
    assert times(tmp_path, DIED) == REPEATS
    assert times(tmp_path, NODE) == BYSTANDER_REPEATS
    assert times(tmp_path, WorkerLost("aa", MEMORY)) == BYSTANDER_REPEATS
    assert times(tmp_path, WorkerLost("bb", MEMORY)) == REPEATS
    assert times(tmp_path, RayActorError(error_msg="a worker's process died: " + str(NODE))) == BYSTANDER_REPEATS
    told = fault_of(WorkerLost("bb", MEMORY), tmp_path).says
    assert "this trial's worker was 43" in told
    assert "worker 42 used 0.06 GB" in told
    assert "spillable" not in told


def test_counts_are_of_one_kind_and_begin_anew_with_each_checkpoint(tmp_path: Path) -> None:
    crash_report(tmp_path)
    attempts = Attempts(tmp_path)
    for number in range(6):
        for error in (DIED, WorkerLost("bb", MEMORY), DIED, NODE):
            assert not attempts.give_up(job(tmp_path), error)[1]
        (tmp_path / f"checkpoint-{number:06d}-0123456789abcdef.pt").touch()
    assert not attempts.give_up(job(tmp_path), DIED)[1]
    assert not attempts.give_up(job(tmp_path), DIED)[1]
    assert "3 times without a new checkpoint its worker's process died" in attempts.give_up(job(tmp_path), DIED)[1]


def test_last_words_of_a_worker_are_in_the_trials_error(tmp_path: Path) -> None:
    crash_report(tmp_path)
    says = fault_of(DIED, tmp_path).says
    assert says.endswith("pid: 77\nUserWarning: hot\nFatal Python error: Segmentation fault")


def test_a_crash_that_the_trials_own_log_holds_counts_once_for_each_report(tmp_path: Path) -> None:
    """While a trial is at work, standard error leads to its own file: a crash report is there, not in Ray's."""
    report = "Fatal Python error: Segmentation fault\n\nCurrent thread:\n  in batch\n"
    attempts, printed = Attempts(tmp_path / "logs"), tmp_path / "stderr.log"
    for number in range(1, REPEATS):
        printed.write_text("a warning\n" + report * number)
        fault, why = attempts.give_up(job(tmp_path), DIED)
        assert not why
        assert not fault.bystander
        assert fault.says.endswith("in batch")
    assert attempts.give_up(job(tmp_path), DIED)[0].bystander  # nothing new was written: killed from outside

    attempts = Attempts(tmp_path / "logs")
    for number in range(1, REPEATS + 1):
        printed.write_text(report * number)
        why = attempts.give_up(job(tmp_path), DIED)[1]
    assert "3 times without a new checkpoint its worker's process died" in why
    assert "in batch" in why


def test_a_full_disk_is_nobodys_fault(tmp_path: Path) -> None:
    full = RayTaskError("step", "Traceback ...", DiskFull("no space left on /x"))
    with pytest.raises(DiskFull, match="no space left on /x"):
        Attempts(tmp_path).give_up(job(tmp_path), full)
