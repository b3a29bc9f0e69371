"""A disk that is full in the middle of a sweep: nothing written is lost, the message names it, the run goes on."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from orchestrator import disk, runner, spec
from orchestrator.executors.debug import DebugExecutor
from orchestrator.folder import find
from orchestrator.search.optuna import storage
from orchestrator.tracking.base import NoTracker
from tests.orchestrator.command import check_mlflow, ended, finish, in_this_process, start, values, wait_for
from tests.orchestrator.sweep_files import sweep_text


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MiB of its own, mounted at `runs`."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk to fill")
    place = tmp_path / "runs"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no small disk could be mounted: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(filler: Path) -> None:
    """Take every free byte."""
    for size in (1 << 20, 1 << 12, 1):
        try:
            with filler.open("ab", buffering=0) as out:
                while True:
                    out.write(b"x" * size)
        except OSError as error:
            assert disk.is_full(error)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_the_same_command_finishes_it(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "fit.yaml"
    file.write_text(sweep_text(method="random", trials=5, confirm=3, per_trial=40, pause_s=0.01))
    process = start(file)
    wait_for(file, 4, process)
    filler = small / "filler"
    deadline = time.time() + 90
    while process.poll() is None and time.time() < deadline:
        fill(filler)
        time.sleep(0.01)
    out = finish(process, 10)
    assert process.returncode == 75, out
    assert f"no space left on {small}" in out, out
    assert "give the same command again" in out
    assert "Traceback" not in out, out
    before = {p: p.read_bytes() for p in small.glob("*/trials/*/result.json")}
    assert 4 <= len(before) == ended(file) < 16
    refused = start(file)
    out = finish(refused)
    assert refused.returncode == 75, out
    assert f"no space left on {small}" in out, out
    filler.unlink()
    again = start(file)
    out = finish(again)
    assert again.returncode == 0, out
    folder = find(small, "@last")
    assert all(path.read_bytes() == content for path, content in before.items())
    assert values(folder) == values(in_this_process(file))
    assert not list(folder.path.glob("**/.*.json.*"))
    check_mlflow(folder)
    print(f"disk full after {len(before)} of 16 trials; all of them kept, the others trained once there was room")


def test_a_half_written_line_of_the_journal_is_cut_off_and_a_dead_drivers_lock_is_gone(tmp_path: Path) -> None:
    text = sweep_text(trials=2, confirm=1)
    definition = spec.loads(text, "test.yaml")
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
