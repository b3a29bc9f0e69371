"""Who owns a sweep and a trial: the holder is named, and killing its process frees the lock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.storage.errors import Held
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial.locking import locked as _lock
from tests.orchestrator.command import REPOSITORY, environment

DRIVER = """
import sys, pathlib
from orchestrator.storage.folder import SweepFolder
with SweepFolder(pathlib.Path(sys.argv[1]), "sweep").hold():
    print("mine", flush=True)
    sys.stdin.read()
"""
WORKER = """
import sys, pathlib
from orchestrator.trial.locking import locked as _lock
lock = _lock(pathlib.Path(sys.argv[1]) / "lock")
print("mine", flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(script: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has the lock, until it is told or killed."""
    command = [sys.executable, "-c", script, str(folder)]
    process = subprocess.Popen(
        command, env=environment(), cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mine\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_sweep_names_its_driver_and_is_free_once_that_is_killed(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, "sweep")
    assert not folder.is_held()
    assert not folder.path.exists(), "asking makes no folder"
    folder.path.mkdir()
    with holding(DRIVER, tmp_path) as driver:
        assert folder.is_held()
        with pytest.raises(Held, match=f"^sweep sweep is being run by process {driver.pid} on "), folder.hold():
            pass
        said = (folder.path / "lock").read_text()
        assert f"process {driver.pid} on" in said, "who was refused changed nothing"
        driver.kill()
        driver.wait()
        assert (folder.path / "lock").read_text() == said, "a killed driver leaves its name"
        assert not folder.is_held()
        with folder.hold():
            assert folder.is_held()
    assert (folder.path / "lock").read_text() == ""


@pytest.mark.slow
def test_a_trial_is_free_once_its_worker_is_killed(tmp_path: Path) -> None:
    with holding(WORKER, tmp_path) as worker:
        with pytest.raises(TimeoutError, match="is still held by another worker after 0 s"):
            _lock(tmp_path / "lock", patience_s=0.1)
        worker.kill()
        lock = _lock(tmp_path / "lock", patience_s=30.0)
        assert lock.is_locked
        lock.release()
        lock.release()
