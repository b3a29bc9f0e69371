"""What the progress line promises: a total that stays, a best that may be chosen, an end at once before training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator import display
from orchestrator.definition.states import Goal, Stage
from orchestrator.scheduling.callbacks import Begun
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial.job import Job, Report
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept


class Watching:
    """Runs a sweep in this process and keeps the line after each trial."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._conductor: Any = None

    def on_start(self, job: Job) -> None:
        self.lines.append(display.plain_line(self._conductor))

    def on_report(self, job: Job, report: Report) -> None:
        self.lines.append(display.plain_line(self._conductor))

    def on_end(self, job: Job, result: Any) -> None:
        self.lines.append(display.plain_line(self._conductor))

    def on_recover(self, job: Job, result: Any) -> None:
        """Nothing."""

    @contextmanager
    def watch(self, conductor: Any) -> Iterator[None]:
        self._conductor = conductor
        yield

    def run(self, text: str, root: Path) -> list[str]:
        swept(text, root, None, (self,), self.watch)
        return self.lines


@pytest.mark.slow
def test_the_total_stays_when_trials_end_early(tmp_path: Path) -> None:
    """Trials that diverge take fewer steps; what all may take is what was planned."""
    text = sweep_text(trials=4, method="random", max_lr=1e6)
    lines = Watching().run(text, tmp_path)
    totals = {line.partition(" of ")[2].partition(" gradient")[0].removeprefix("at most ") for line in lines}
    assert len(totals) == 1
    assert "at most" not in lines[0]
    assert "at most" in lines[-1]
    assert " 0 of" not in lines[-1]


@pytest.mark.slow
def test_the_best_so_far_obeys_the_outcome_constraints(tmp_path: Path) -> None:
    """Nothing has a loss below zero, so that there is no best."""
    free = Watching().run(sweep_text(trials=2), tmp_path / "free")
    bound = Watching().run(sweep_text(trials=2) + '\noutcome_constraints: ["loss/val <= -1"]\n', tmp_path / "bound")
    assert any("best" in line for line in free)
    assert not any("best" in line for line in bound)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(
        trial_id="sgd-0000-s0", arm="sgd", stage=Stage.TUNE, configuration=0, seed=0, optimizer="sgd", parameters={},
        task="digits", task_parameters={}, budget=8.0, evaluations=1, metric="loss/val", goal=Goal.MINIMIZE,
        select="last", folder=str(tmp_path), stop_file="",
    )  # fmt: skip


def test_nothing_has_begun_before_a_worker_writes_or_reports(job: Job, tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, "x")
    begun = Begun(folder)
    assert not begun.yet
    begun.on_start(job)
    assert not begun.yet
    place = folder.trial(job.trial_id)
    place.mkdir(parents=True)
    (place / "trial.json").write_text("{}")
    assert begun.yet
    later = Begun(folder)
    later._since += 1.0  # another driver's file
    later.on_start(job)
    assert not later.yet
    later.on_report(job, Report(trial_id=job.trial_id, grad_evals=1.0))
    assert later.yet
