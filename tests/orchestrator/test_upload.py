"""Checkpoints on their way to an object store, while their trial trains, is drained or is stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.storage import object_store
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial.session import TrialSession
from tests.orchestrator.test_store import a_job, objects, wait
from tests.services import s3_server

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("GEOSWEEP_SCRATCH", str(tmp_path / "scratch"))
    with s3_server("bucket"):
        yield "s3://bucket"


class Slow:
    """The store, in which an upload of a checkpoint takes until `let_through`."""

    def __init__(self, store: Any) -> None:
        self._store, self.begun, self.let_through = store, list[str](), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_file(self, near: str, far: str) -> None:
        if "checkpoint" in far:
            self.begun.append(far)
            assert self.let_through.wait(30)
        self._store.put_file(near, far)


def test_training_goes_on_while_a_checkpoint_is_uploaded(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time: the next checkpoint waits for the end of the upload, and what is told is what arrived."""
    uri = f"{bucket}/slow"
    folder = SweepFolder(object_store.near(uri), "s")
    session = TrialSession(a_job(folder, pause_s=0.05))
    assert session._place._far is not None
    slow = Slow(session._place._far._store)
    monkeypatch.setattr(session._place._far, "_store", slow)
    session._due = 0.0
    reports = [session.advance() for _ in range(3)]
    assert [(r.evaluation, r.durable) for r in reports] == [(1, -1.0), (2, -1.0), (3, -1.0)]
    wait(lambda: len(slow.begun) == 1)
    object_store.near(session.job.stop_file).parent.mkdir(parents=True, exist_ok=True)
    object_store.near(session.job.stop_file).touch()
    threading.Timer(0.2, slow.let_through.set).start()
    drained = session.advance()
    assert (drained.state, drained.durable, len(slow.begun)) == ("INTERRUPTED", 30.0, 2), "both arrived before it ended"


def test_a_trial_that_was_stopped_while_its_checkpoint_was_on_the_way_leaves_none(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{bucket}/late"
    folder = SweepFolder(object_store.near(uri), "s")
    job = a_job(folder)
    session = TrialSession(job)
    assert session._place._far is not None
    slow = Slow(session._place._far._store)
    monkeypatch.setattr(session._place._far, "_store", slow)
    session._due = 0.0
    session.advance()
    wait(lambda: len(slow.begun) == 1)
    trial = folder.trial(job.trial_id)
    trial.mkdir(parents=True)
    for name in ("trial.json", "result.json"):
        (trial / name).write_text("{}")
    folder.publish(job.trial_id)
    slow.let_through.set()
    session.close()
    assert set(objects("late/s/trials/adamw-0000-s0")) == {"trial.json", "metrics.jsonl", "result.json"}
    assert not object_store.near(job.folder, "work").exists()
