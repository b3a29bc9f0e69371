"""What every executor promises (`executors.base`); each one runs all of it in tests/orchestrator/test_executors.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import results, runner
from orchestrator.definition import sweep_file
from orchestrator.executors.base import Executor
from orchestrator.executors.debug import DebugExecutor
from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking.base import NoTracker
from tests.orchestrator.command import values
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import ran

Make = Callable[[], Executor]
SMALL = {"method": "random", "trials": 2, "confirm": 2, "per_trial": 12}


def open_sweep(root: Path, **changes: Any) -> tuple[Any, SweepFolder]:
    text = sweep_text(**{**SMALL, **changes})
    spec = sweep_file.loads(text, "test.yaml")
    return spec, runner.open_folder(spec, text, root, {})


def run(root: Path, executor: Executor, **changes: Any) -> tuple[SweepFolder, runner.Outcome]:
    return ran(sweep_text(**{**SMALL, **changes}), root, executor)


def check_every_trial_ends_once_with_the_same_values(make: Make, root: Path, reference: dict[str, list[Any]]) -> None:
    """The points of every trial are those of any other executor; a failed one is the trial's own affair."""
    executor = make()
    folder, outcome = run(root, executor, fail_at=3, fail_seed=1000)
    executor.close()
    executor.close()
    assert outcome.state == "done"
    assert outcome.conductor.exhausted
    assert outcome.conductor.remaining == 0
    ended = [t.trial_id for t in results.ended_trials(folder)]
    assert len(ended) == len(set(ended)) == 8
    assert {t.trial_id for t in results.ended_trials(folder) if t.result.state == "FAILED"} == {
        t for t in ended if t.endswith("s1000")
    }
    assert values(folder) == reference


def check_packed_trials_are_those_alone(make: Make, root: Path) -> None:
    """With `resources: {pack: 4}`, whatever the executor makes of it: one that breaks is its own affair still."""

    def folder_of(pack: int, executor: Executor) -> SweepFolder:
        text = sweep_text(**{**SMALL, "fail_at": 3, "fail_seed": 1000, "extra": f"resources: {{pack: {pack}}}"})
        text = text.replace("pause_s", "dropout: 0.0, pause_s", 1)
        folder, outcome = ran(text, root / str(pack), executor)
        assert outcome.state == "done"
        executor.close()
        return folder

    packed, alone = folder_of(4, make()), folder_of(1, DebugExecutor())
    mine, theirs = ({t.trial_id: t.result for t in results.ended_trials(folder)} for folder in (packed, alone))
    assert {t: r.state for t, r in mine.items()} == {t: r.state for t, r in theirs.items()}
    points, expected = values(packed), values(alone)
    for trial_id, of_it in expected.items():
        assert [step for step, _ in points[trial_id]] == [step for step, _ in of_it]
        for (_, found), (_, wanted) in zip(points[trial_id], of_it, strict=True):
            assert all(found[name] == pytest.approx(value, rel=1e-4) for name, value in wanted.items())


def check_an_asked_stop_drains(make: Make, root: Path) -> None:
    """A stop asked for before or while trials run: `run` returns, nothing is lost, the next one goes on."""
    spec, folder = open_sweep(root)

    class Stop:
        def on_start(self, job: Any) -> None:
            folder.ask_to_stop()

        def on_report(self, job: Any, report: Any) -> None: ...

        def on_end(self, job: Any, result: Any) -> None: ...

        def on_recover(self, job: Any, result: Any) -> None: ...

    executor = make()
    with folder.hold():
        outcome = runner.run(spec, folder, executor, NoTracker(), (Stop(),))
    executor.close()
    assert outcome.state == "stopped"
    assert outcome.conductor.exhausted
    assert outcome.conductor.remaining > 0
    _, again = run(root, DebugExecutor())
    assert again.state == "done"
    assert len(results.ended_trials(folder)) == 8


def check_closing_twice_does_no_harm(make: Make) -> None:
    """Also when nothing was run; after a run, see above."""
    executor = make()
    executor.close()
    executor.close()
