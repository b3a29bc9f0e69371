"""Files and folders that the user names: what cannot be read or written is said in a line, before anything starts."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.orchestrator.sweep_files import sweep_text
from tests.verbs import Called

OWN = """
from tests.tasks import Fit
class Mine(Fit):
    "A task of one's own."
"""


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["validate", "run", "plan", "lint", "k8s render", "k8s render --check", "submit"])
def test_files_that_are_none(verb: str, call: Callable[..., Called], tmp_path: Path) -> None:
    binary, folder = tmp_path / "binary.yaml", tmp_path / "folder"
    binary.write_bytes(b"name: \xff\xfe")
    folder.mkdir()
    more = ["--address", "http://127.0.0.1:9"] if verb == "submit" else []
    for path, said in (
        (binary, "is not UTF-8 text (byte 6); save it as UTF-8"),
        (folder, "is a folder; name a file in it"),
        (tmp_path / "none.yaml", "no such file"),
    ):
        found = call(*verb.split(), str(path), *more)
        assert (found.code, found.err.replace("\n", "")) == (3, f"{path}: {said}")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_places_that_cannot_be_written(call: Callable[..., Called], tmp_path: Path) -> None:
    file, taken = tmp_path / "fit.yaml", tmp_path / "taken"
    file.write_text(sweep_text(trials=1, confirm=6, method="random"))
    taken.touch()
    found = call("run", str(file), "--root", str(taken), "--executor", "debug")
    assert found.code == 2
    assert "isafile;namethefolder" in "".join(found.err.replace("│", "").split())
    assert call("run", str(file), "--executor", "debug", "--no-tracking").code == 0
    for words in (("export", "@last", "-o", str(taken)), ("compare", "@last", "--csv", str(tmp_path))):
        found = call(*words)
        assert found.code == 2
        assert "name a place that you can write to" in found.err
    assert call("compare", "@last", "--csv", str(tmp_path / "new" / "pairs.csv")).code == 0
    assert (tmp_path / "new" / "pairs.csv").exists()


@pytest.mark.long  # the starter of test_wheel.py lies where the command is called, too
def test_modules_of_the_current_folder(tmp_path: Path) -> None:
    """The command as it is installed finds a task that lies where it is called."""
    (tmp_path / "my_task_of_this_test.py").write_text(OWN)
    file = tmp_path / "fit.yaml"
    file.write_text(
        sweep_text(trials=1, confirm=2, method="random").replace("tests.tasks:Fit", "my_task_of_this_test:Mine")
    )
    command = [str(Path(sys.executable).with_name("geosweep")), "run", "fit.yaml", "--executor", "debug"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "GEOSWEEP_ROOT": "runs"}
    done = subprocess.run(
        [*command, "--no-tracking"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_version(call: Callable[..., Called]) -> None:
    from importlib.metadata import version

    assert call("--version") == (0, f"geosweep {version('geosweep')}\n", "")


@pytest.mark.slow
def test_nothing_is_cut_off_on_a_narrow_terminal(
    call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    file = tmp_path / "fit.yaml"
    file.write_text(sweep_text(trials=1, confirm=6, method="random"))
    assert call("run", str(file), "--executor", "debug", "--no-tracking").code == 0
    whole = call("compare", "@last").out
    command = [str(Path(sys.executable).with_name("geosweep")), "compare", "@last", "--root", str(tmp_path / "runs")]
    read, write = pty.openpty()
    termios.tcsetwinsize(write, (24, 50))
    with subprocess.Popen(command, stdout=write, cwd=Path(__file__).parents[2]) as process:
        os.close(write)
        seen = b""
        with contextlib.suppress(OSError):  # the other end was closed
            while piece := os.read(read, 4096):
                seen += piece
    os.close(read)
    assert process.returncode == 0
    (row,) = [line for line in whole.splitlines() if line.startswith("│")]
    for cell in row.strip("│").split("│"):
        assert cell.strip() in seen.decode()


def test_a_task_without_the_metric_says_so_in_its_first_trial(call: Callable[..., Called], tmp_path: Path) -> None:
    file = tmp_path / "fit.yaml"
    text = sweep_text(trials=1, confirm=6, method="random").replace("tests.tasks:Fit", "tests.tasks:Mute")
    file.write_text(text.replace(", pause_s: 0.0, fail_at: -1, fail_seed: -1", ""))
    assert call("run", str(file), "--executor", "debug", "--no-tracking", "--skip-steps").code == 8
    said = (
        "evaluate of task tests.tasks:Mute returned cost/grad_evals, cost/steps, loss/train, time/step_s, but "
        "not loss/val, which"
    )
    assert all(said in error for error in call("status", "--json").document["errors"].values())
