"""What a task started in the command's own process ends with the command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.orchestrator.command import fresh
from tests.orchestrator.sweep_files import sweep_text

SERVED = """
import subprocess
from tests.tasks import Fit

class Served(Fit):
    def model(self, seed):
        server = subprocess.Popen(["sleep", "600"])
        with open("started", "a") as out:
            out.write(f"{server.pid}\\n")
        return super().model(seed)
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"  # nobody's child is waited for


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system lists no children")
@pytest.mark.parametrize("verb", [["validate"], ["run", "--executor", "debug", "--no-tracking"]])
def test_a_server_of_a_task_ends_with_the_command(verb: list[str], tmp_path: Path) -> None:
    (tmp_path / "served_task.py").write_text(SERVED)
    text = sweep_text(trials=1, confirm=2, per_trial=8).replace("tests.tasks:Fit", "served_task:Served")
    (tmp_path / "fit.yaml").write_text(text)
    done = fresh(verb[0], "fit.yaml", *verb[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    started = [int(line) for line in (tmp_path / "started").read_text().split()]
    assert started
    assert not [pid for pid in started if is_alive(pid)]
