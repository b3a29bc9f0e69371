"""Scripts in more than one place: on one machine after another, and as several ranks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import runner
from orchestrator.definition import sweep_file
from orchestrator.definition.states import ConfigurationState, Stage, State
from orchestrator.scheduling.jobs import job_of
from orchestrator.search.base import Configuration
from orchestrator.storage.metric_log import MetricLog
from orchestrator.storage.object_store import Far, near
from orchestrator.trial.program.session import ProgramSession
from orchestrator.trial.record import read_result
from tests.orchestrator.test_program_ends import PROGRAMS, records, run
from tests.orchestrator.test_program_lives import RESUME, job, steps, until
from tests.services import s3_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """One of a server that speaks S3, and the name of one in memory."""
    with s3_server("scripts"):
        yield "scripts"


@pytest.mark.parametrize(
    "more, store",
    [
        (RESUME, "s3"),
        pytest.param("resume_arg: --resume=${trial_dir}/state.txt", "memory", marks=pytest.mark.long),
        pytest.param(
            "three lines", "s3", marks=pytest.mark.long
        ),  # as drained in test_program_lives.py, on one machine
    ],
    ids=["checkpoints", "folder", "three-lines"],
)
def test_it_goes_on_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, store: str, bucket: str
) -> None:
    """Lost with its machine, drained on a second, ended on a third: each begins where the one before it had kept."""
    if more == "three lines":
        text = LISTENS
        spec = sweep_file.loads(text, str(PROGRAMS / "sweep.yaml"))
        folder = runner.open_folder(spec, text, tmp_path / "runs", runner.provenance())
        configuration = Configuration(number=0, parameters={"lr": 0.05, "wait": 0.2}, state=ConfigurationState.RUNNING)
        given = job_of(spec, folder, spec.arms["only"], configuration, 0, Stage.TUNE)
    else:
        given, _ = job(tmp_path / "runs", more=more, wait=0.4)
    sweep = f"{store}://{bucket}{tmp_path}"
    given = replace(given, folder=f"{sweep}/trials/{given.trial_id}", stop_file=f"{sweep}/stop", checkpoint_s=0.0)
    there = Far(given.folder, tmp_path / "elsewhere")

    def on(machine: str) -> ProgramSession:
        monkeypatch.setenv("GEOSWEEP_SCRATCH", str(tmp_path / machine))
        near(given.stop_file).parent.mkdir(parents=True, exist_ok=True)
        return ProgramSession(given)

    def goes_on(session: ProgramSession) -> bool:
        assert not session.advance().done, "on a busy machine it ended before it was lost"
        return True

    def kept() -> list[str]:
        return [name for name in there.names() if name.startswith("checkpoint-")]

    monkeypatch.setattr("orchestrator.trial.program.kept.SETTLED_S", 0.1)
    lost = on("first")
    assert until(lambda: goes_on(lost) and kept(), 60.0)
    lost.close()
    drained = on("second")
    assert until(
        lambda: goes_on(drained) and len(steps(near(given.folder, "work"))) > (2 if more == "three lines" else 12)
    )
    near(given.stop_file).touch()
    while not (report := drained.advance()).done:
        continue
    assert report.state is State.INTERRUPTED
    assert len(kept()) == 1, "the newest"
    third = on("third")
    while not (report := third.advance()).done:
        continue
    assert report.state is State.COMPLETE
    assert kept() == []
    points = [json.loads(line)["step"] for line in there.text("metrics.jsonl").splitlines()]
    assert points == sorted(set(points))
    result = json.loads(there.text("result.json"))
    assert result["facts"]["runs"].startswith(
        "3: it continued from" if more == "three lines" else "3: it was told to resume"
    )
    if more != "three lines":
        begun = [line for line in there.text("stdout.log").splitlines() if line.startswith("from ")]
        at = [int(line.split()[1]) for line in begun]
        assert 0 == at[0] < at[1] < at[2] < 20


RANKS = """
schema_version: 1
name: ranks
task:
  program: ranks.py
  command: ["${interpreter}", -m, torch.distributed.run, --standalone, --nproc-per-node=2, "${program}"]
  grace: 2s
metric: {name: loss, goal: minimize}
arms: {only: {optimizer: sgd, parameters: {lr: 0.05, wait: %s, wrap: %s}}}
method: {name: grid}
budget: {unit: steps, per_trial: 20}
seeds: {tune: 1, confirm: 0}
"""


def test_torchrun(tmp_path: Path) -> None:
    """Rank 0 is heard, the others say that they are not."""
    folder = run(RANKS % (0.0, "false"), tmp_path / "whole")
    ((name, one),) = records(folder).items()
    assert one.result.state is State.COMPLETE, one.result.error
    points = MetricLog(folder.trial(name) / "metrics.jsonl").points()
    assert [p.step for p in points] == list(range(1, 21))
    assert {p.metrics["rank"] for p in points} == {0.0}
    assert one.result.value is not None
    assert one.result.value < 1000
    assert "reports from rank 1 are ignored" in (folder.trial(name) / "stderr.log").read_text()
    assert one.result.proof["steps"] == 20


@pytest.mark.long  # six interpreters; a script that is closed leaves no process of one rank in make test
def test_torchrun_that_is_ended_leaves_no_rank(tmp_path: Path) -> None:
    text = RANKS % (5.0, "true")
    spec = sweep_file.loads(text, str(PROGRAMS / "sweep.yaml"))
    folder = runner.open_folder(spec, text, tmp_path / "ended", runner.provenance())
    parameters = {"lr": 0.05, "wait": 5.0, "wrap": True}
    configuration = Configuration(number=0, parameters=parameters, state=ConfigurationState.RUNNING)
    given = job_of(spec, folder, spec.arms["only"], configuration, 0, Stage.TUNE)
    session = ProgramSession(given)
    printed = Path(given.folder) / "stdout.log"

    def pids() -> list[int]:
        text = printed.read_text() if printed.exists() else ""
        return [int(pid) for pid in re.findall(r"of 2 is (\d+)", text)]  # ranks may share a line

    assert until(lambda: session.advance() and len(pids()) == 2, 60.0)
    session.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids())
    assert read_result(Path(given.folder)) is None


LISTENS = """
schema_version: 1
name: listens
task: {program: plain_trial.py}
metric: {name: val_loss, goal: minimize}
arms: {only: {optimizer: adamw, parameters: {lr: 0.05, wait: 0.1}}}
method: {name: grid}
budget: {unit: grad_evals, per_trial: 40}
seeds: {tune: 1, confirm: 0}
"""
