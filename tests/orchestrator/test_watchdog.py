"""A step that hangs ends its trial as FAILED with the stack of the hang, and the sweep goes on."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from orchestrator import results, runner
from orchestrator.definition import sweep_file
from orchestrator.definition.states import Goal, Stage
from orchestrator.executors.debug import DebugExecutor
from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking.base import NoTracker
from orchestrator.trial.job import Job
from orchestrator.trial.session import TrialSession
from orchestrator.trial.watchdog import Watchdog, left_behind
from tests.orchestrator.sweep_files import sweep_text


def hanging_sweep(hang: str, **changes: str) -> str:
    """A sweep whose confirm seed 1001 hangs at the fifth step."""
    sweep = yaml.safe_load(sweep_text(method="random", trials=1, confirm=2, max_failed=2))
    del sweep["arms"]["adamw"]
    sweep["task"] |= {"hang_at": 5, "hang": hang, "fail_seed": 1001}
    sweep["training"] = {"step_timeout": "3s"}  # a busy machine stops a step for a second
    return yaml.safe_dump({**sweep, **changes})


def check(folder: SweepFolder) -> None:
    """The hung seed failed, with its stack; everything else is complete."""
    states = {(t.job.arm, t.job.seed): t.result.state for t in results.ended_trials(folder)}
    assert states == {("sgd", 0): "COMPLETE", ("sgd", 1000): "COMPLETE", ("sgd", 1001): "FAILED"}
    for error in results.status(folder).errors.values():
        assert "training.step_timeout" in error
        assert "tasks.py" in error, error
        assert "in batch" in error


@pytest.mark.slow
def test_in_this_process_the_step_is_interrupted(tmp_path: Path) -> None:
    text = hanging_sweep("python")
    definition = sweep_file.loads(text)
    folder = runner.open_folder(definition, text, tmp_path, {})
    before, began = signal.getsignal(signal.SIGUSR1), time.perf_counter()
    with folder.hold():
        assert runner.run(definition, folder, DebugExecutor(), NoTracker()).state == "done"
    assert time.perf_counter() - began < 60
    assert signal.getsignal(signal.SIGUSR1) is before
    check(folder)
    assert not list(folder.path.glob("trials/*/hang*"))


@pytest.mark.slow
def test_a_hang_in_c_ends_the_process_and_the_next_session_tells(tmp_path: Path) -> None:
    """The step keeps the interpreter for itself, so that no Python code can run: faulthandler ends the process."""
    job = Job(
        trial_id="t", arm="a", stage=Stage.TUNE, configuration=0, seed=0, optimizer="sgd", parameters={"lr": 0.05},
        task="tests.tasks:Fit", task_parameters={"hang_at": 5, "hang": "c"}, budget=40, evaluations=4,
        metric="loss/val", goal=Goal.MINIMIZE, select="last", folder=str(tmp_path), stop_file=str(tmp_path / "stop"),
        step_timeout_s=3.0,
    )  # fmt: skip
    script = (
        "import pickle, sys; from orchestrator.trial.session import TrialSession; "
        "TrialSession(pickle.load(sys.stdin.buffer), own_process=True).advance()"
    )
    done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(job), timeout=200, capture_output=True)
    assert done.returncode == 1, done.stderr.decode()[-2000:]
    assert not (tmp_path / "result.json").exists()
    session = TrialSession(job, own_process=True)
    report = session.advance()
    assert (report.done, report.state) == (True, "FAILED")
    error = json.loads((tmp_path / "result.json").read_text())["error"]
    assert "hang.txt: Timeout" in error
    assert "tasks.py" in error
    assert "in batch" in error


@pytest.mark.slow
def test_beats_keep_it_quiet_and_stopping_leaves_nothing(tmp_path: Path) -> None:
    watchdog = Watchdog(tmp_path / "hang.txt", 1.0, own_process=False)
    for _ in range(28):
        watchdog.beat()
        time.sleep(0.05)
    assert left_behind(tmp_path) == ""
    watchdog.stop()
    time.sleep(1.3)
    assert not list(tmp_path.iterdir())


def test_no_limit_watches_nothing(tmp_path: Path) -> None:
    watchdog = Watchdog(tmp_path / "hang.txt", None, own_process=True)
    watchdog.beat()
    watchdog.stop()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_step_that_stands_in_the_debugger_is_left_alone(tmp_path: Path) -> None:
    """Stand in `pdb` for longer than the limit, then go on."""
    watchdog = Watchdog(tmp_path / "hang.txt", 0.5, own_process=False)
    namespace = {"__name__": "pdb", "time": time}
    exec("def cmdloop():\n    time.sleep(1.2)\n", namespace)
    watchdog.beat()
    namespace["cmdloop"]()  # type: ignore[operator]
    watchdog.stop()
