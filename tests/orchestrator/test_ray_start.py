"""A start of Ray that failed because the machine was busy is tried again, anything else is told at once."""

from __future__ import annotations

import errno
import inspect
import os
from pathlib import Path

import pytest
from ray._private import node, services

from orchestrator.executors.ray_start import PASSING, PLACE, TRIES, begin, passes, token

BUSY = RuntimeError("Failed to start GCS. Last connection error: deadline exceeded")


class Start:
    """Fails so many times."""

    def __init__(self, failures: int, error: BaseException = BUSY) -> None:
        self.calls, self.undone, self.slept = 0, 0, 0
        self._failures, self._error = failures, error

    def __call__(self) -> None:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error

    def undo(self) -> None:
        self.undone += 1

    def sleep(self, seconds: float) -> None:
        self.slept += 1


@pytest.mark.parametrize("failures", [0, 1, TRIES - 1])
def test_what_passes_is_tried_again(failures: int) -> None:
    start = Start(failures)
    begin(start, start.undo, lambda: True, start.sleep)
    assert (start.calls, start.undone, start.slept) == (failures + 1, failures, failures)


@pytest.mark.parametrize("error, wanted, calls", [
    (BUSY, True, TRIES),
    (BUSY, False, 1),
    (ValueError("num_cpus must be positive"), True, 1),
    (PermissionError(errno.EACCES, "no"), True, 1),
    (KeyboardInterrupt(), True, 1),
])  # fmt: skip
def test_it_ends_with_what_the_last_try_raised(error: BaseException, wanted: bool, calls: int) -> None:
    start = Start(99, error)
    with pytest.raises(type(error)):
        begin(start, start.undo, lambda: wanted, start.sleep)
    assert (start.calls, start.undone) == (calls, calls)


def test_the_words_are_rays() -> None:
    """Ray says of busy machines what we look for."""
    source = inspect.getsource(node) + inspect.getsource(services)
    plain = "".join(part.strip() for part in source.replace('"\n', "\n").replace('f"', '"').split("\n"))
    lacking = [words for words in PASSING if words not in source and words not in plain.replace('"', "")]
    assert set(lacking) <= {"Address already in use", "Failed to start GCS"}  # the system's; put together of two
    assert "Failed to {'start' if self.head else 'connect to'} GCS" in source


@pytest.mark.parametrize("error, found", [
    (TimeoutError("node"), True),
    (OSError(errno.EADDRINUSE, "taken"), True),
    (OSError(errno.ENOSPC, "full"), False),
    (Exception("The current node timed out during startup."), True),
    (SystemExit(1), False),
])  # fmt: skip
def test_what_passes(error: BaseException, found: bool) -> None:
    assert passes(error) is found


@pytest.mark.parametrize("home, own", [("writable", False), ("missing/folder", True)])
def test_a_home_that_cannot_be_written_to_needs_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, own: bool
) -> None:
    (tmp_path / "writable").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / home))
    for name in ("RAY_AUTH_TOKEN", PLACE):
        monkeypatch.delenv(name, raising=False)
    with token(tmp_path):
        assert (PLACE in os.environ) is own
        if own:
            path = Path(os.environ[PLACE])
            assert len(path.read_text()) >= 32
            assert path.stat().st_mode & 0o077 == 0
    assert PLACE not in os.environ
    monkeypatch.setenv(PLACE, "mine")
    with token(tmp_path):
        assert os.environ[PLACE] == "mine"
    assert os.environ[PLACE] == "mine"
