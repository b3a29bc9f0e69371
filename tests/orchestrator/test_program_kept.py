"""What a script keeps is archived while the script may write it."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.trial.program.kept import Kept
from orchestrator.trial.workspace import TrialPlace

TASK = {"resume_arg": "--resume=${checkpoint}", "checkpoints": "${trial_dir}/state"}
BYTES = 16 << 20


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrialPlace]:
    monkeypatch.setenv("GEOSWEEP_SCRATCH", str(tmp_path))
    place = TrialPlace(f"memory://kept{tmp_path}/trials/x", f"memory://kept{tmp_path}/stop")
    (place.folder / "script").mkdir()
    yield place
    place.close()


def test_a_checkpoint_that_is_written_in_place_is_left_for_the_next_time(place: TrialPlace) -> None:
    """While it is emptied and filled again nothing is raised, and no archive holds a part of it."""
    state, over = place.folder / "state", threading.Event()
    state.touch()
    kept = Kept(place, place.folder / "script", TASK)

    def write() -> None:
        while not over.is_set():
            os.truncate(state, 0)
            os.truncate(state, BYTES)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(60):
            kept.save(0.0, 1.0, last=True)
    finally:
        over.set()
        writer.join()
    kept.save(0.0, 2.0, last=True)
    (archive,) = place.folder.glob("checkpoint-*.tar")
    with tarfile.open(archive) as whole:
        assert [member.size for member in whole if member.name == "state"] == [BYTES]
