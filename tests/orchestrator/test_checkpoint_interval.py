"""A driver that is lost costs each running trial at most one checkpoint interval, however rarely it evaluates."""

from __future__ import annotations

import io
import itertools
import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import display, runner
from orchestrator.definition import sweep_file
from orchestrator.definition.states import Stage
from orchestrator.scheduling.jobs import job_of
from orchestrator.storage.metric_log import MetricLog
from orchestrator.trial.session import CHECKPOINT_SHARE, TrialSession
from tests.orchestrator.command import REPOSITORY, Forked, environment
from trainables import checkpoint

pytestmark = pytest.mark.slow

STEP_S, EVERY_S, STEPS = 0.01, 0.1, 150
TASK = """
import os
from tests.tasks import Fit
from orchestrator.definition.states import Stage
class Traced(Fit):
    "Writes down which batch it trains on, in which process."
    def __init__(self, *, trace: str) -> None:
        super().__init__(pause_s={pause})
        self._trace = trace
    def batch(self, seed, index):
        with open(self._trace, "a") as out:
            out.write(f"{{os.getpid()}} {{index}} .\\n")
        return super().batch(seed, index)
"""
TEXT = """
schema_version: 1
name: traced
task: {{name: "traced_task:Traced", trace: "{trace}"}}
metric: {{name: loss/val, goal: minimize}}
arms: {{sgd: {{optimizer: sgd, parameters: {{lr: {{values: [0.1]}}}}}}}}
method: {{name: grid}}
budget: {{unit: grad_evals, per_trial: {steps}}}
seeds: {{tune: 1, confirm: 2}}
evaluations: 1
resources: {{checkpoint_every: {every}s}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "traced_task.py").write_text(TASK.format(pause=STEP_S))
    path = tmp_path / "traced.yaml"
    path.write_text(TEXT.format(trace=tmp_path / "trace", steps=STEPS, every=EVERY_S))
    return path


def start(file: Path) -> Forked:
    words = ("run", str(file), "--root", str(file.parent / "runs"), "--executor", "debug", "--no-tracking")
    return Forked(*words, env=environment(PYTHONPATH=f"{REPOSITORY}:{file.parent}"))


def trace(file: Path) -> dict[int, list[int]]:
    """Process -> batches in order."""
    found: dict[int, list[int]] = {}
    path = file.parent / "trace"
    for line in path.read_text().splitlines() if path.exists() else []:
        words = line.split()
        if len(words) == 3:
            found.setdefault(int(words[0]), []).append(int(words[1]))
    return found


def test_killed_between_evaluations(file: Path) -> None:
    """The only evaluation is at the end of the trial: what is kept comes from checkpoints in between."""
    first = start(file)
    deadline = time.monotonic() + 250
    while not max(trace(file).get(first.pid, [0])) > STEPS // 2:
        assert first.poll() is None, first.said()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait(60)
    (folder,) = (file.parent / "runs").glob("traced-*/trials/sgd-0000-s0")
    newest = max(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*.pt"))
    second = start(file)
    while not (folder / "result.json").exists():
        assert second.poll() is None, second.said()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    second.wait(60)
    steps = trace(file)
    last, resumed = steps[first.pid][-1], steps[second.pid][0]
    assert resumed > 0
    assert steps[second.pid][:5] == list(range(resumed, resumed + 5))
    assert last - resumed <= 3 * last / (newest + 1)  # what lies between two checkpoints, at any pace
    assert [p.step for p in MetricLog(folder / "metrics.jsonl").points()] == [STEPS]


def test_a_checkpoint_takes_at_most_a_tenth_of_the_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk stretches the interval."""
    monkeypatch.syspath_prepend(str(file.parent))
    definition = sweep_file.load(file)
    folder = runner.open_folder(definition, file.read_text(), file.parent / "runs", {})
    (arm,) = runner.open_arms(definition, folder).values()
    job = job_of(definition, folder, arm.spec, arm.ask(), definition.seeds.tune[0], Stage.TUNE)
    assert job.checkpoint_s == EVERY_S
    times: list[float] = []
    save = checkpoint.save

    def slow(*given: object, **named: object) -> object:
        times.append(time.monotonic())
        time.sleep(0.1)
        return save(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "save", slow)
    session = TrialSession(job)
    report = session.advance()
    session.close()
    assert report.state == "COMPLETE"
    assert times
    assert all(later - earlier >= 0.1 / 0.1 for earlier, later in itertools.pairwise(times))
    assert json.loads((Path(job.folder) / "result.json").read_text())["seconds"] >= STEPS * STEP_S


def test_a_stretched_interval_is_said_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(file.parent))
    definition = replace(sweep_file.load(file), evaluations=10)
    folder = runner.open_folder(definition, file.read_text(), file.parent / "runs", {})
    (arm,) = runner.open_arms(definition, folder).values()
    job = job_of(definition, folder, arm.spec, arm.ask(), definition.seeds.tune[0], Stage.TUNE)
    save = checkpoint.save

    def slow(*given: object, **named: object) -> object:
        time.sleep(0.1)
        return save(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "save", slow)
    session, console = TrialSession(replace(job, slice_s=0.0)), Console(file=io.StringIO())
    callback, reports = display.Stretched(console), []
    while not (report := session.advance()).done:
        reports.append(report)
        callback.on_report(job, report)
    stretched = [r.checkpoint_s for r in reports if r.checkpoint_s > EVERY_S]
    assert len(stretched) > 3
    assert min(stretched) >= 0.1 / CHECKPOINT_SHARE
    said = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    expected = stretched[:1]
    for apart in stretched:
        if apart > 2 * expected[-1]:  # "again only when it doubles", as a stalled disk makes it
            expected.append(apart)
    assert len(said) == len(expected)
    for line, apart in zip(said, expected, strict=True):
        assert f"checkpoints of {job.trial_id} are {apart:.1f} s apart, not {EVERY_S:g} s" in line
