"""What does not come to an end by itself is named, with the place in the sweep file, while it goes on."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator.protocol.patience import Frames, endless_reading, endless_step, watched

TEXT = """schema_version: 1
task: {name: "endless:Task"}
arms:
  sgd: {}
  mine: {optimizer: endless.optim.Mine}
"""


def heard(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> list[tuple[str, str]]:
    """What is said of a module that waits until somebody has spoken of it: as a file that is read, and as a step."""
    (folder / "endless.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "endless", raising=False)
    said: list[tuple[str, str]] = []
    spoken = threading.Event()
    monkeypatch.setattr(threading, "spoken", spoken, raising=False)

    def overdue(frames: Frames) -> None:
        said.append((str(endless_reading(TEXT, "F", frames, 30)), str(endless_step(TEXT, "F", "own", frames, 30))))
        spoken.set()

    with watched(0.05, overdue):
        importlib.import_module("endless").begin()
    return said


def test_a_module_that_hangs_while_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import threading\nthreading.spoken.wait(60)\ndef begin(): pass\n"
    [(reading, _)] = heard(tmp_path, monkeypatch, source)
    assert (
        reading
        == "F:2:8: task.name: importing endless has not ended after 30 s (endless.py:2); --skip-steps waits for it"
    )


def test_a_task_that_catches_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import threading\n\ndef begin():\n    model()\n\ndef model():\n    threading.spoken.wait(60)\n"
    [(reading, step)] = heard(tmp_path, monkeypatch, source)
    assert reading.startswith("F:2:1: task: building the task has not ended after 30 s (endless.py:7)")
    assert step.startswith(
        "F:2:8: task.name: test_a_task_that_catches_everything() of task own has not ended after 30 s"
    )
    assert "cannot be interrupted (endless.py:7)" in step
    assert step.endswith("fix it, or pass --skip-steps")


def test_who_is_in_time_is_not_spoken_of() -> None:
    said: list[Frames] = []
    with watched(0.2, said.append):
        pass
    time.sleep(0.4)
    assert said == []


def test_an_optimizer_of_the_module_is_the_place() -> None:
    text = TEXT.replace("endless:Task", "digits")
    scope: dict[str, object] = {"__name__": "endless.optim", "sys": sys}
    exec(compile("frame = sys._getframe()", "optim.py", "exec"), scope)
    frames: Frames = [scope["frame"]]  # type: ignore[list-item]
    assert str(endless_reading(text, "F", frames, 30)).startswith(
        "F:5:10: arms.mine.optimizer: importing endless.optim has not ended"
    )
