"""A script's life under a worker: it dies with it, ends when it is told, and goes on, or begins again, afterwards."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
from collections.abc import Callable
from dataclasses import replace
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
from orchestrator.storage.object_store import Far, near
from orchestrator.trial.job import Job
from orchestrator.trial.program.session import ProgramSession
from orchestrator.trial.record import read_result
from tests.orchestrator.command import Forked
from tests.orchestrator.test_program_ends import PROGRAMS, mentioning, records, run

pytestmark = pytest.mark.slow

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
    return [p.step for p in MetricLog(folder / "metrics.jsonl").points()]


def test_it_dies_with_its_worker(tmp_path: Path) -> None:
    given, _ = job(tmp_path, wait=5.0, deaf=True)
    (tmp_path / "given").write_bytes(pickle.dumps(given))
    (tmp_path / "worker.py").write_text(
        "import pathlib, pickle, sys; from orchestrator.trial.program.session import ProgramSession\n"
        "s = ProgramSession(pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()))\nwhile True: s.advance()\n"
    )
    worker = Forked(str(tmp_path / "given"), program=tmp_path / "worker.py")
    assert until(lambda: mentioning(f"--out={given.folder}"))
    worker.send_signal(signal.SIGKILL)
    worker.wait(20)
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
    assert result.error.startswith("resumes.py was killed together with its supervising process")
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
    (RESUME, "2: it was told to resume where it had been ended (--resume=${checkpoint})", None),
    ("", "2: started over, since there is no resume_arg", "from 0"),
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


def test_in_an_object_store_what_it_printed_and_measured_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drained, then lost with its worker, then ended, on one machine: what was known of it is there at the end."""
    monkeypatch.setenv("GEOSWEEP_SCRATCH", str(tmp_path / "scratch"))
    given, _ = job(tmp_path / "runs", more=RESUME, wait=0.1)
    sweep = f"memory://bucket{tmp_path}"
    given = replace(given, folder=f"{sweep}/trials/{given.trial_id}", stop_file=f"{sweep}/stop")
    there, stop = Far(given.folder, tmp_path / "elsewhere"), near(given.stop_file)
    stop.parent.mkdir(parents=True)

    def until_step(session: ProgramSession, step: int) -> bool:
        return until(lambda: session.advance() and max(steps(near(given.folder, "work")), default=0) > step)

    drained = ProgramSession(given)
    assert until_step(drained, 3)
    stop.touch()
    while not (report := drained.advance()).done:
        continue
    assert report.state is State.INTERRUPTED
    stop.unlink()
    assert "3: loss" in there.text("stdout.log")
    lost = ProgramSession(given)
    assert until_step(lost, 8)
    measured = steps(near(given.folder, "work"))
    assert measured == list(range(1, len(measured) + 1))
    lost.close()
    again = ProgramSession(given)
    while not (report := again.advance()).done:
        continue
    assert report.state is State.COMPLETE
    points = [json.loads(line)["step"] for line in there.text("metrics.jsonl").splitlines()]
    assert points == sorted(set(points))
    assert set(points) >= {*measured, 20}
    printed = there.text("stdout.log")
    assert printed.count("the trial goes on here") == 2
    assert all(f"\n{step:g}: loss" in printed for step in measured)


KEPT = """
schema_version: 1
name: kept
task:
  program: resumes.py
  command: ["${interpreter}", "${program}", --steps=1000, "${args}"]
  output_arg: --out
  grace: 1s
  metrics: [{pattern: '^(?P<step>\\d+): loss (?P<loss>\\S+)'}]
metric: {name: loss, goal: minimize}
arms: {only: {parameters: {slope: 1.0, wait: 0.01}}}
method: {name: grid}
budget: {unit: %s, per_trial: %s}
seeds: {tune: 1, confirm: 0}
"""


@pytest.mark.parametrize(("unit", "budget"), [("steps", 10), ("seconds", 1)])
def test_a_script_that_is_not_told_its_budget_is_ended_there(tmp_path: Path, unit: str, budget: int) -> None:
    ((_, one),) = records(run(KEPT % (unit, budget), tmp_path)).items()
    assert one.result.state is State.COMPLETE
    assert one.result.proof["budget"] == "kept"
    if unit == "steps":
        assert one.result.value == 1 / 10
        assert one.result.grad_evals == 10
    else:
        assert budget <= one.result.grad_evals <= 2 * budget + 2
    assert not mentioning(one.job.folder)


def test_steps_of_another_unit_are_named(tmp_path: Path) -> None:
    ((_, one),) = records(run((KEPT % ("epochs", 2)).replace("(?P<step>", "(?P<step>[1-9]\\d"), tmp_path)).items()
    assert one.result.state is State.FAILED
    assert one.result.error.startswith("resumes.py began at step 100, beyond its budget of 2 epochs: name the field")


def test_reports_without_a_step_stay_in_order(tmp_path: Path) -> None:
    """The n-th is evaluation n; beyond the last all are at the end of the budget, and the newest is the last."""
    folder = run((KEPT % ("steps", 100)).replace("^(?P<step>\\d+): ", "").replace("=1000", "=20"), tmp_path)
    ((name, one),) = records(folder).items()
    points = MetricLog(folder.trial(name) / "metrics.jsonl").points()
    assert [p.step for p in points] == [100 * min(n, 8) / 8 for n in range(1, 21)]
    times = [p.time for p in points if p.step == 100]
    assert times == sorted(set(times))
    assert one.result.value == 1 / 20


STUDIES = """
schema_version: 1
name: studies
task: {program: resumes.py, budget_arg: --steps, output_arg: --out,
       metrics: [{pattern: '^(?P<step>\\d+): loss (?P<loss>\\S+)'}]}
metric: {name: loss, goal: minimize}
arms: {only: {parameters: {slope: {min: 1.0, max: 9.0}}}}
method: {name: tpe, replay: strict, lag: 1, random_share: 0.5}
budget: {unit: steps, per_trial: 4, trials_per_arm: 3}
seeds: {studies: 2, tune: 1, confirm: 1}
evaluations: 2
early_terminate: {type: median, min_budget: 50%}
"""


def test_studies_and_strict_replay(tmp_path: Path) -> None:
    """Each study searches by itself; the same file gives the same suggestions and results again."""
    drawn = []
    for root in ("one", "two"):
        found = records(run(STUDIES, tmp_path / root))
        assert {one.job.study for one in found.values()} == {1, 2}
        assert sum(one.job.stage is Stage.CONFIRM for one in found.values()) == 2
        drawn.append({name: (one.job.parameters["slope"], one.result.value) for name, one in found.items()})
    assert drawn[0] == drawn[1]
    assert len({slope for name, (slope, _) in drawn[0].items() if "-s100" not in name}) == 6


ALIKE = """
schema_version: 1
name: alike
task: {program: strange.py, metrics: [{pattern: 'step=(?P<step>\\d+) loss=(?P<loss>\\S+)'}]}
metric: {name: loss, goal: minimize}
arms: {only: {parameters: {how: %s, steps: {values: [4, 5, 6, 7, 8, 9, 10, 11, 12, 13]}}}}
method: {name: grid}
budget: {unit: steps, per_trial: 20}
seeds: {tune: 1, confirm: 1}
"""


@pytest.mark.parametrize(("how", "says"), [
    ("raises", "ValueError: a rate of nothing"), ("usage", "strange.py ended with exit code 2")
])  # fmt: skip
def test_a_sweep_whose_trials_fail_alike_is_given_up(tmp_path: Path, how: str, says: str) -> None:
    folder = run(ALIKE % how, tmp_path)
    assert len(records(folder)) == 5
    assert (
        f"the first 5 trials all failed in the same way and the sweep was given up: {says}"
        in (folder.path / "refused.json").read_text()
    )


def test_one_that_keeps_checkpoints_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Drained in the middle, a script of three lines leaves a checkpoint and ends where it would have ended."""
    text = """
schema_version: 1
name: keeps
task: {program: plain_trial.py}
metric: {name: val_loss, goal: minimize}
arms: {only: {optimizer: adamw, parameters: {lr: 0.05, wait: 0.05}}}
method: {name: grid}
budget: {unit: grad_evals, per_trial: 40}
seeds: {tune: 1, confirm: 0}
"""
    spec = sweep_file.loads(text, str(PROGRAMS / "sweep.yaml"))
    values = []
    for name, drained in (("whole", False), ("drained", True)):
        folder = runner.open_folder(spec, text, tmp_path / name, runner.provenance())
        parameters = {"lr": 0.05, "wait": 0.05}
        configuration = Configuration(number=0, parameters=parameters, state=ConfigurationState.RUNNING)
        given = job_of(spec, folder, spec.arms["only"], configuration, 0, Stage.TUNE)
        session = ProgramSession(given)
        if drained:
            assert until(lambda: session.advance() and len(steps(Path(given.folder))) > 0, 60.0)  # noqa: B023
            folder.stop_file.touch()
            while not (report := session.advance()).done:
                continue
            assert report.state is State.INTERRUPTED
            folder.stop_file.unlink()
            session = ProgramSession(given)
        while not session.advance().done:
            continue
        result = read_result(Path(given.folder))
        assert result is not None
        assert result.state is State.COMPLETE, result.error
        assert steps(Path(given.folder)) == [10, 20, 30, 40]
        assert (result.proof["steps"], result.proof["grad_evals"]) == (40, 40)
        values.append((result.value, result.metrics["train_loss"], result.init_digest, result.data_digest))
    assert "it continued from its checkpoint at step" in result.facts["runs"]
    assert values[0] == values[1]


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
