"""A script's life under a worker: it dies with it, ends when it is told, and goes on, or begins again, afterwards."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import runner
from orchestrator.definition import sweep_file
from orchestrator.definition.states import ConfigurationState, Stage, State
from orchestrator.scheduling.jobs import job_of
from orchestrator.search.base import Configuration
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import MetricLog
from orchestrator.trial.job import Job
from orchestrator.trial.program.session import ProgramSession
from orchestrator.trial.record import read_result
from tests.orchestrator.command import REPOSITORY
from tests.orchestrator.test_program_ends import PROGRAMS, mentioning, records, run

TEXT = """
schema_version: 1
name: lives
task:
  program: resumes.py
  budget_arg: --steps
  output_arg: --out
  metrics: [{pattern: '^(?P<step>\\d+): loss (?P<loss>\\S+)'}]
  grace: 1s
  %s
metric: {name: loss, goal: minimize}
arms: {only: {parameters: {slope: {values: [1.0, 2.0, 3.0, 4.0]}, wait: %s, deaf: %s}}}
method: {name: grid}
budget: {unit: steps, per_trial: 20}
seeds: {tune: 1, confirm: 1}
evaluations: 10
%s
"""
RESUME = "resume_arg: --resume=${checkpoint}\n  checkpoints: ${trial_dir}/state.txt"


def job(where: Path, *, more: str = "", wait: float = 0.1, deaf: bool = False) -> tuple[Job, SweepFolder]:
    text = TEXT % (more, wait, str(deaf).lower(), "")
    spec = sweep_file.loads(text, str(PROGRAMS / "sweep.yaml"))
    folder = runner.open_folder(spec, text, where, runner.provenance())
    parameters = {"slope": 1.0, "wait": wait, "deaf": deaf}
    configuration = Configuration(number=0, parameters=parameters, state=ConfigurationState.RUNNING)
    return job_of(spec, folder, spec.arms["only"], configuration, 0, Stage.TUNE), folder


def until(condition: Callable[[], Any], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def steps(folder: Path) -> list[float]:
    return [p["step"] for p in MetricLog(folder / "metrics.jsonl").points()]


def test_it_dies_with_its_worker(tmp_path: Path) -> None:
    given, _ = job(tmp_path, wait=5.0, deaf=True)
    code = (
        "import pickle, sys; from orchestrator.trial.program.session import ProgramSession; "
        "s = ProgramSession(pickle.load(sys.stdin.buffer))\nwhile True: s.advance()"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    assert worker.stdin is not None
    worker.stdin.write(pickle.dumps(given))
    worker.stdin.close()
    assert until(lambda: mentioning(f"--out={given.folder}"))
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert until(lambda: not mentioning(given.folder))


def test_it_dies_with_its_keeper_and_the_trial_says_so(tmp_path: Path) -> None:
    given, _ = job(tmp_path, wait=0.2)
    session = ProgramSession(given)
    assert not session.advance().done
    script = session._script
    assert script is not None
    os.kill(script._keeper.pid, signal.SIGKILL)
    while not (report := session.advance()).done:
        continue
    assert report.state is State.FAILED
    result = read_result(Path(given.folder))
    assert result is not None
    assert result.error.startswith("resumes.py was killed together with the process that watched over it")
    assert not mentioning(given.folder)


def test_closing_ends_one_that_ignores_sigterm(tmp_path: Path) -> None:
    given, _ = job(tmp_path, wait=0.5, deaf=True)
    session = ProgramSession(given)
    session.advance()
    assert mentioning(given.folder)
    session.close()
    assert not mentioning(given.folder)
    assert read_result(Path(given.folder)) is None


@pytest.mark.parametrize(("more", "says", "first"), [
    (RESUME, "2: it was told to go on where it had been ended (--resume=${checkpoint})", None),
    ("", "2: begun again, since there is no resume_arg", "from 0"),
], ids=["resumes", "begins-again"])  # fmt: skip
def test_a_drained_trial_goes_on_or_begins_again(tmp_path: Path, more: str, says: str, first: str | None) -> None:
    given, folder = job(tmp_path, more=more, wait=0.1)
    session = ProgramSession(given)
    assert until(lambda: session.advance() and len(steps(Path(given.folder))) > 3)
    folder.stop_file.touch()
    while not (report := session.advance()).done:
        continue
    assert report.state is State.INTERRUPTED
    assert not mentioning(given.folder)
    folder.stop_file.unlink()
    again = ProgramSession(given)
    while not (report := again.advance()).done:
        continue
    assert report.state is State.COMPLETE
    assert steps(Path(given.folder)) == list(range(1, 21))
    result = read_result(Path(given.folder))
    assert result is not None
    assert result.facts["runs"] == says
    printed = (Path(given.folder) / "stdout.log").read_text().splitlines()
    begun = [line for line in printed if line.startswith("from ")]
    assert begun[0] == "from 0"
    assert (begun[1] == "from 0") == (first == "from 0")


def test_stopping_early_judges_at_the_scripts_own_steps(tmp_path: Path) -> None:
    text = TEXT % ("", 0.02, "false", "early_terminate: {type: asha, eta: 2, min_budget: 30%}")
    folder = run(text, tmp_path)
    tuned = [one for one in records(folder).values() if one.job.stage == "tune"]
    stopped = {one.job.parameters["slope"]: one.result for one in tuned if one.result.state is State.PRUNED}
    assert set(stopped) == {2.0, 3.0, 4.0}  # of the two or more seen at a rung the better half goes on
    for slope, result in stopped.items():
        assert result.stopped is not None
        assert result.stopped.rung == 3  # of ten evaluations
        assert result.stopped.value == pytest.approx(slope / 6)  # at step 6 of 20
        assert result.grad_evals == 6
    assert not mentioning(str(folder.path.resolve()))
