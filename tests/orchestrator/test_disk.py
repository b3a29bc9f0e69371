"""A disk that is full in the middle of a sweep: nothing written is lost, the message names it, the run goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from orchestrator import results, runner
from orchestrator.definition import sweep_file
from orchestrator.executors.debug import DebugExecutor
from orchestrator.search.optuna_storage import storage
from orchestrator.storage.disk import DiskFull, named
from orchestrator.tracking.base import NoTracker
from tests.orchestrator.command import values
from tests.orchestrator.small_disk import fill, mounted
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept


class Filling(DebugExecutor):
    """Takes every free byte once the third trial has ended, then before each further report."""

    def __init__(self, filler: Path) -> None:
        self._filler, self._ended = filler, 0

    def run(self, conductor: Any) -> None:
        on_report = conductor.on_report

        def hearing(report: Any) -> bool:
            self._ended += report.done
            if self._ended >= 3:
                fill(self._filler)
            return bool(on_report(report))

        conductor.on_report = hearing
        super().run(conductor)


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_sweep_goes_on_once_there_is_room(tmp_path: Path) -> None:
    text = sweep_text(method="random", trials=3, confirm=2)
    definition = sweep_file.loads(text, "test.yaml")
    plain = swept(text, tmp_path / "plain")
    with mounted(tmp_path / "runs") as small:
        folder = runner.open_folder(definition, text, small, {})
        with folder.hold(), pytest.raises(DiskFull, match=f"no space left on {small}"), named(folder.path):
            runner.run(definition, folder, Filling(small / "filler"), NoTracker())
        before = {path: path.read_bytes() for path in small.glob("*/trials/*/result.json")}
        assert 2 <= len(before) < 10
        assert [t.result.state for t in results.ended_trials(folder)] == ["COMPLETE"] * len(before)
        (small / "filler").unlink()
        with folder.hold():
            assert runner.run(definition, folder, DebugExecutor(), NoTracker()).state == "done"
        assert all(path.read_bytes() == content for path, content in before.items())
        assert values(folder) == values(plain)
        assert not list(folder.path.glob("**/.*.json.*"))


@pytest.mark.slow
def test_a_half_written_line_of_the_journal_is_cut_off_and_a_dead_drivers_lock_is_gone(tmp_path: Path) -> None:
    text = sweep_text(trials=2, confirm=1)
    definition = sweep_file.loads(text, "test.yaml")
    folder = runner.open_folder(definition, text, tmp_path, {})
    runner.open_arms(definition, folder)["sgd"].study.ask()
    whole = folder.journal.read_bytes()
    folder.journal.write_bytes(whole + b'{"op_code":4,"worker_id":"x","study_id":0,"dateti')
    folder.journal.with_name("study.journal.lock").symlink_to(folder.journal)
    began = time.monotonic()
    with folder.hold():
        assert runner.run(definition, folder, DebugExecutor(), NoTracker()).state == "done"
    assert time.monotonic() - began < 25  # Optuna breaks a lock after 30 s
    assert folder.journal.read_bytes().startswith(whole)
    study = optuna.load_study(study_name=f"{folder.sweep_id}/sgd", storage=storage(folder.journal))
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 2
