"""Checkpoints: whole or absent, the newest whole one wins, and all trials together keep within their quota."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables import checkpoint
from trainables.checkpoint import Quota


@pytest.mark.parametrize("damage", [lambda b: b[:-10], lambda b: b"", lambda b: b[:99] + bytes([b[99] ^ 1]) + b[100:]])
def test_a_damaged_checkpoint_falls_back(damage: object, tmp_path: Path) -> None:
    checkpoint.save({"step": 1}, tmp_path)
    newest = checkpoint.save({"step": 2}, tmp_path)
    assert newest is not None
    newest.write_bytes(damage(newest.read_bytes()))  # type: ignore[operator]
    with pytest.warns(UserWarning, match="is damaged"):
        assert checkpoint.newest(tmp_path) == {"step": 1}
    for step in range(3, 6):
        checkpoint.save({"step": step}, tmp_path)
    assert len(list(tmp_path.glob("*.pt"))) == 2
    assert checkpoint.newest(tmp_path) == {"step": 5}


@pytest.mark.parametrize(
    "held", [deque([1.0]), np.ones(2), np.float64(1.0), Path("a"), lambda: None], ids=lambda held: type(held).__name__
)
def test_what_could_not_be_read_back_is_not_written(held: object, tmp_path: Path) -> None:
    with pytest.raises(checkpoint.Unreadable, match="tensors, numbers and text, no") as found:
        checkpoint.save({"state": held}, tmp_path)
    assert "weights_only" not in str(found.value), "what torch says to who calls torch.load"
    assert "Weights only" not in str(found.value)
    assert not list(tmp_path.iterdir())


def test_one_that_an_earlier_version_wrote_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_read", lambda content: {})
    checkpoint.save({"state": deque([1.0])}, tmp_path)
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="cannot be read back"):
        assert checkpoint.newest(tmp_path) is None


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None


def test_a_half_written_one_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save({"step": 1}, tmp_path)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save({"step": 2}, tmp_path)
    assert checkpoint.newest(tmp_path) == {"step": 1}
    monkeypatch.undo()
    checkpoint.save({"step": 3}, tmp_path)
    assert checkpoint.newest(tmp_path) == {"step": 3}
    assert not list(tmp_path.glob(".*"))


def test_the_quota_of_all_trials_holds_and_no_trial_loses_its_newest(tmp_path: Path) -> None:
    """Three trials in turn; room for about four and a half checkpoints, then for two and a half."""
    state = {"weights": torch.zeros(20_000)}
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    path = checkpoint.save({**state, "step": -1}, folders[0])
    assert path is not None
    size = path.stat().st_size
    quota = Quota(tmp_path, int(4.5 * size))

    def taken() -> int:
        return sum(p.stat().st_size for p in tmp_path.glob("*/*.pt"))

    for step in range(4):
        for folder in folders:
            assert checkpoint.save({**state, "step": step}, folder, quota=quota) is not None
            assert taken() <= quota.limit
            assert (checkpoint.newest(folder) or {})["step"] == step
    tight = Quota(tmp_path, int(2.5 * size))
    with pytest.warns(UserWarning, match="no room for a checkpoint"):
        assert checkpoint.save({**state, "step": 9}, folders[0], quota=tight) is None
    assert [(checkpoint.newest(f) or {})["step"] for f in folders] == [3, 3, 3]
    assert taken() < 3.1 * size
    for p in folders[2].glob("*.pt"):
        p.unlink()
    assert checkpoint.save({**state, "step": 10}, folders[0], quota=tight) is not None
    assert len(list(folders[0].glob("*.pt"))) == 1
    assert (checkpoint.newest(folders[0]) or {})["step"] == 10
