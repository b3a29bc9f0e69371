"""With `cache: true`, a trial of a task of one's own is taken over only while the files that it read are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.orchestrator.command import fresh

TASK = """
import os
import sqlite3
from pathlib import Path

import numpy
import torch

from trainables import Metric, Task

HERE = Path(__file__).parent
SCALE = float((HERE / "scale.txt").read_text())


class Line(Task):
    METRICS = {"loss/val": Metric(goal="minimize", worst=1e9)}

    def __init__(self):
        self.x = torch.tensor(numpy.loadtxt("data/x.csv", delimiter=","), dtype=torch.float32).reshape(-1, 1)
        self.shards = len(list(HERE.glob("shards/*.csv")))

    def model(self, seed):
        torch.manual_seed(seed)
        return torch.nn.Linear(1, 1)

    def batch(self, seed, index):
        return self.x, self.x * 2

    def batch_identity(self, seed, index):
        return b"all"

    def loss(self, outputs, targets):
        return ((outputs - targets) ** 2).mean()

    def evaluate(self, model):
        with open(HERE / "linked" / "offset.txt") as file:
            offset = float(file.read())
        extra = HERE / "extra.txt"
        try:
            offset += float(extra.read_text())
        except FileNotFoundError:
            pass
        if os.path.exists("flag") or (HERE / "other" / "flag").is_file():
            offset += 2
        return {"loss/val": SCALE * self.loss(model(self.x), self.x * 2).item() + offset + self.shards}
"""
SWEEP = """
schema_version: 1
name: {name}
task: {{name: "line:Line"}}
metric: {{name: loss/val, goal: minimize}}
arms: {{sgd: {{parameters: {{lr: 0.1}}}}}}
method: {{name: grid}}
budget: {{unit: grad_evals, per_trial: 8}}
seeds: {{tune: 1, confirm: 1}}
cache: true
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep's folder with data: at the top, in sub-folders, and behind a link to elsewhere."""
    mine, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    for place in (mine / "data", mine / "shards", elsewhere):
        place.mkdir(parents=True)
    (mine / "linked").symlink_to(elsewhere)
    (mine / "line.py").write_text(TASK)
    (mine / "scale.txt").write_text("1.0")
    (mine / "data" / "x.csv").write_text("1,2,3\n")
    (mine / "shards" / "one.csv").write_text("1\n")
    (elsewhere / "offset.txt").write_text("0.0")
    return mine


def values(folder: Path, name: str) -> tuple[list[float], list[bool]]:
    """Run the sweep under a name: the values of its trials, and which were taken over."""
    (folder / f"{name}.yaml").write_text(SWEEP.format(name=name))
    ended = fresh("run", f"{name}.yaml", "--executor", "debug", "--no-tracking", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    found = [json.loads(p.read_text()) for p in sorted((folder / "runs").glob(f"{name}-*/trials/*/result.json"))]
    return [r["value"] for r in found], [bool(r["cached_from"]) for r in found]


@pytest.mark.slow
def test_data_that_changed_trains_anew(folder: Path) -> None:
    first, taken = values(folder, "first")
    assert not any(taken)
    assert values(folder, "second") == (first, [True] * len(first)), "the same data is taken over"
    (folder / "linked" / "offset.txt").write_text("5.0")
    other, taken = values(folder, "third")
    assert not any(taken)
    assert other == pytest.approx([v + 5 for v in first])
    (folder / "linked" / "offset.txt").write_text("0.0")
    assert values(folder, "fourth")[0] == first


READER = """
import json, sys
from pathlib import Path
from orchestrator.definition import opened
opened.watch()
sys.path.insert(0, ".")
import line
reader = type(sys)("reader")
exec(compile("def use(task): task().evaluate(task().model(0))", opened.__file__, "exec"), vars(reader))
reader.use(line.Line)
Path("kept.json").write_text(json.dumps(opened.read(Path("runs").absolute())))
"""
CHANGES: dict[str, Callable[[Path], object]] = {
    "read on import": lambda folder: (folder / "scale.txt").write_text("2.0"),
    "in a sub-folder, by numpy": lambda folder: (folder / "data" / "x.csv").write_text("1,2,4\n"),
    "behind a link": lambda folder: (folder / "linked" / "offset.txt").write_text("0.1"),
    "the link": lambda folder: (folder / "linked").rename(folder / "other"),
    "a file more": lambda folder: (folder / "shards" / "two.csv").write_text("1\n"),
    "a file that was not there": lambda folder: (folder / "extra.txt").write_text("1.0"),
    "a file that was asked for": lambda folder: (folder / "flag").touch(),
    "one in a folder that was not there": lambda folder: _in_folder(folder / "other" / "flag"),
    "same size and time": lambda folder: _quietly(folder / "scale.txt", "7.0"),
}


def _in_folder(path: Path) -> None:
    path.parent.mkdir()
    path.touch()


def _quietly(path: Path, text: str) -> None:
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def read(folder: Path, program: str = READER) -> dict[str, str] | None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    (folder.parent / "reader.py").write_text(program)
    subprocess.run([sys.executable, str(folder.parent / "reader.py")], cwd=folder, env=environment, check=True)
    kept: dict[str, str] | None = json.loads((folder / "kept.json").read_text())
    return kept


@pytest.mark.slow
def test_what_was_read_is_recorded_and_every_change_shows(folder: Path) -> None:
    from orchestrator.definition import opened

    kept = read(folder)
    assert kept is not None
    assert opened.unchanged(kept)
    for what, change in CHANGES.items():
        copy = folder.parent / f"copy of {len(list(folder.parent.iterdir()))}"
        subprocess.run(["cp", "-a", str(folder), str(copy)], check=True)
        (copy / "linked").unlink()
        subprocess.run(["cp", "-a", str(folder.parent / "elsewhere"), str(copy / "linked")], check=True)
        moved = {path.replace(str(folder), str(copy)): was for path, was in kept.items()}
        assert opened.unchanged(moved), what
        change(copy)
        assert not opened.unchanged(moved), what


@pytest.mark.parametrize(
    "away",
    [
        "import subprocess; subprocess.run(['cat', 'scale.txt'], capture_output=True)",
        "import multiprocessing; p = multiprocessing.get_context('fork').Process(target=int); p.start(); p.join()",
        "import os; os.utime(HERE / 'scale.txt')",
    ],
)
def test_where_what_was_read_is_not_known_nothing_is_remembered(folder: Path, away: str) -> None:
    (folder / "line.py").write_text(
        f"from pathlib import Path\nHERE = Path(__file__).parent\n(HERE / 'scale.txt').read_text()\n{away}\n"
    )
    assert read(folder, READER.replace("reader.use(line.Line)", "")) is None
