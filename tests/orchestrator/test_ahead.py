"""Ray is started ahead of the file only where a new sweep on this machine will need that very cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.cli.ahead import _size
from orchestrator.storage import object_store

FILE = """
name: fit
task: {name: least_squares}
parameters: {lr: {values: [0.1, 0.2]}}
arms: {sgd: {optimizer: sgd}}
"""


@pytest.mark.parametrize(
    "resources, most, expected",
    [
        ("", 0, (1, None)),
        ("{}", 0, (1, None)),
        ("{cpu: 2}", 0, (2, None)),
        ("{cpu: 2, processes: 3}", 0, (6, None)),
        ("{processes: auto}", 0, (1, None)),
        ("{max_concurrent: 4}", 0, (1, 4)),
        ("{max_concurrent: 4}", 2, (1, 2)),
        ("{max_concurrent: 8, pack: 4}", 0, (1, 2)),
        ("{pack: 16}", 2, (1, 1)),
        ("{gpu: 1}", 0, None),
        ("{cpu: 0}", 0, None),
        ("{cpu: true}", 0, None),
        ("{cpu: many}", 0, None),
        ("{max_concurrent: -1}", 0, None),
        ("[1]", 0, None),
    ],
)
def test_the_size_is_that_of_the_file(
    resources: str, most: int, expected: tuple[int, int | None] | None, tmp_path: Path
) -> None:
    file = tmp_path / "fit.yaml"
    file.write_text(f"{FILE}resources: {resources}\n")
    assert _size(file, (), tmp_path / "runs", most) == expected


@pytest.mark.parametrize("text", ["", "- 1", "name: [", "task: {}", "\x00", "name: fit\nname: fit"])
def test_nothing_is_started_for_what_is_no_sweep(text: str, tmp_path: Path) -> None:
    file = tmp_path / "fit.yaml"
    file.write_text(text)
    assert _size(file, (), tmp_path, 0) is None
    assert _size(tmp_path / "none.yaml", (), tmp_path, 0) is None


def test_nothing_is_started_for_what_may_be_continued_or_another_sweep(tmp_path: Path) -> None:
    file, root = tmp_path / "fit.yaml", tmp_path / "runs"
    file.write_text(FILE)
    assert _size(file, ["budget.per_trial=5"], root, 0) == (1, None)
    assert _size(file, ["resources.cpu=2"], root, 0) is None
    assert _size(file, ["name=other"], root, 0) is None
    assert _size(file, (), object_store.near("s3://bucket/runs"), 0) is None
    (root / "other-12345678").mkdir(parents=True)
    assert _size(file, (), root, 0) == (1, None)
    (root / "fit-12345678").mkdir()
    assert _size(file, (), root, 0) is None


@pytest.mark.slow
def test_a_refused_sweep_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "fit.yaml").write_text(FILE)
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "run", "fit.yaml"]
    place = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GEOSWEEP_ROOT": str(tmp_path / "runs")}
    with subprocess.Popen(command, cwd=tmp_path, env=place, stderr=subprocess.PIPE, text=True) as driver:
        _, said = driver.communicate(timeout=120)
    assert driver.returncode == 3
    assert said.startswith("fit.yaml:") or "fit.yaml:" in said
    assert not (tmp_path / "runs").exists()
    until = time.monotonic() + 20
    while (left := processes_with(f"/gs-{driver.pid}-")) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left, "what Ray wrote meanwhile is removed at the next start"


def processes_with(words: str) -> list[str]:
    """Command lines that have `words` in them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found += [line] if words in line else []
    return found
