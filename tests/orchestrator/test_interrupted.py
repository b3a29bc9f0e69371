"""Ctrl-C before training, after it, and while the command loads: one line, code 130, and the same command goes on."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli.run import _left
from orchestrator.definition import sweep_file
from tests.orchestrator.command import environment, fresh
from tests.orchestrator.sweep_files import sweep_text

LOADING = """
import builtins, os, signal
plain = builtins.__import__
def importing(name, *rest):
    if name == "typer":
        os.kill(os.getpid(), signal.SIGINT)
    return plain(name, *rest)
builtins.__import__ = importing
from orchestrator.cli import main
main()
"""
ENDING = """
import atexit, os, signal, sys
from orchestrator.cli import app
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
@app.app.command()
def stopped():
    raise KeyboardInterrupt
sys.argv = ["geosweep", "stopped"]
app.main()
"""
MINE = """
import os, signal
from pathlib import Path
from tests.tasks import Fit

class Mine(Fit):
    def model(self, seed):
        place = Path("interrupt")
        if place.exists():
            place.unlink()
            signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
            os.kill(os.getpid(), signal.SIGINT)
        return super().model(seed)

    def batch(self, seed, index):
        place = Path("twice")
        if index == 6 and place.exists():  # beyond the steps that are tried before a sweep starts
            place.unlink()
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
        return super().batch(seed, index)
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [LOADING, ENDING], ids=["loads", "ends because of another"])
def test_while_the_command(program: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, "list"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


@pytest.mark.slow
def test_before_the_first_trial_and_after_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interrupted_task.py").write_text(MINE)
    file = tmp_path / "fit.yaml"
    file.write_text(sweep_text(trials=1, confirm=2, per_trial=8).replace("tests.tasks:Fit", "interrupted_task:Mine"))
    words = ("run", "fit.yaml", "--executor", "debug", "--no-tracking")
    (tmp_path / "interrupt").touch()
    done = fresh(*words, cwd=tmp_path)
    assert done.returncode == 130
    again = "geosweep run fit.yaml --executor debug --no-tracking\n"
    assert done.stderr == f"stopped at once; no trial had begun. Begin with:\n  {again}"
    assert not (tmp_path / "runs").exists()
    done = fresh(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "all trials had ended" in _left(tmp_path / "runs", sweep_file.load(file))


@pytest.mark.slow
def test_twice_while_a_trial_trains(tmp_path: Path) -> None:
    """It is a stop, not a crash, and the command that is printed goes on."""
    (tmp_path / "interrupted_task.py").write_text(MINE)
    text = sweep_text(trials=1, confirm=2, per_trial=8).replace("tests.tasks:Fit", "interrupted_task:Mine")
    (tmp_path / "fit.yaml").write_text(text)
    (tmp_path / "twice").touch()
    done = fresh("run", "fit.yaml", "--executor", "debug", "--no-tracking", cwd=tmp_path)
    assert done.returncode == 130
    *_, command = done.stderr.splitlines()
    status = json.loads(fresh("status", "--json", cwd=tmp_path).stdout)
    assert status["state"] == "stopped"
    assert "crash" not in status["waiting_reason"]
    assert fresh(*shlex.split(command)[1:], cwd=tmp_path).returncode == 0
