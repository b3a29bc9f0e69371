"""`os._exit` in a task's code, which ends a process without a word, fails its trial and says where it was called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.trial.termination import OsExit, exits_raise
from tests.orchestrator.command import environment, fresh
from tests.orchestrator.sweep_files import sweep_text

MINE = """
import os
from tests.tasks import Fit

class Mine(Fit):
    def loss(self, outputs, targets):
        if hasattr(self, "begun"):
            os._exit(0)
        self.begun = True
        return super().loss(outputs, targets)
"""
THREAD = """
import os, threading
from orchestrator.trial.termination import exits_raise
with exits_raise():
    ending = threading.Thread(target=os._exit, args=(0,))
    ending.start()
    ending.join()
"""


@pytest.mark.slow
def test_a_trial_fails_and_the_command_says_so(tmp_path: Path) -> None:
    (tmp_path / "ending_task.py").write_text(MINE)
    text = sweep_text(trials=1, confirm=1, per_trial=8).replace("tests.tasks:Fit", "ending_task:Mine")
    (tmp_path / "fit.yaml").write_text(text)
    done = fresh("run", "fit.yaml", "--executor", "debug", "--no-tracking", "--skip-steps", cwd=tmp_path)
    assert (done.returncode, "failed" in done.stderr) == (8, True), done.stderr
    said = fresh("status", cwd=tmp_path).stdout
    assert "called os._exit(0) before its budget was spent" in said
    assert "ending_task.py" in said


@pytest.mark.slow
def test_a_module_that_ends_the_process_is_not_valid(tmp_path: Path) -> None:
    (tmp_path / "gone_task.py").write_text("import os\nos._exit(0)\n")
    text = sweep_text(trials=1, confirm=1, per_trial=8).replace("tests.tasks:Fit", "gone_task:Mine")
    (tmp_path / "fit.yaml").write_text(text)
    done = fresh("validate", "fit.yaml", cwd=tmp_path)
    assert done.returncode == 3
    said = done.stderr + done.stdout
    assert "os._exit(0) (gone_task.py:2); a module must not end the process" in said
    assert "__main__" not in said


def test_a_fork_ends_as_it_asks_and_a_thread_never_with_success() -> None:
    with exits_raise():
        if (child := os.fork()) == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(OsExit):
            os._exit(0)
    done = subprocess.run([sys.executable, "-c", THREAD], env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("os._exit(0)")) == (1, 1)
