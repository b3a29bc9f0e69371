"""The code of trials: sealed file by file, refused when it changes on the way, never taken over when it differs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from orchestrator.trial import source
from tests.orchestrator.command import fresh

TASK = """
import torch
from torch import nn
from trainables import Metric, Task

class Line(Task):
    METRICS = {"loss/val": Metric(goal="minimize", worst=1e4)}

    def __init__(self, *, slope: float = 3.0):
        self.x = torch.linspace(-1, 1, 64)[:, None]
        self.y = slope * self.x

    def model(self, seed):
        torch.manual_seed(seed)
        return nn.Linear(1, 1)

    def _rows(self, seed, index):
        return torch.randint(64, (16,), generator=torch.Generator().manual_seed(seed * 100_003 + index))

    def batch(self, seed, index):
        rows = self._rows(seed, index)
        return self.x[rows], self.y[rows]

    def batch_identity(self, seed, index):
        return self._rows(seed, index).numpy().tobytes()

    def loss(self, outputs, targets):
        return ((outputs - targets) ** 2).mean()

    def evaluate(self, model):
        from mine.score import scale  # an import inside a function counts too
        return {"loss/val": scale() * float(self.loss(model(self.x), self.y))}
"""
SWEEP = """
schema_version: 1
name: {name}
task: {{name: "mine.line:Line"}}
metric: {{name: loss/val, goal: minimize}}
arms:
  sgd: {{optimizer: sgd, parameters: {{lr: {{values: [0.1, 0.2]}}}}}}
method: {{name: grid}}
budget: {{unit: grad_evals, per_trial: 16{limit}}}
seeds: {{tune: 1, confirm: 2}}
cache: {cache}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A researcher's folder: a package with a task, a helper it imports, and one that nothing imports."""
    package = tmp_path / "mine"
    package.mkdir()
    for name, text in {
        "__init__.py": "",
        "line.py": TASK,
        "score.py": "from . import factor\n\ndef scale():\n    return factor.FACTOR\n",
        "factor.py": "FACTOR = 1.0\n",
        "unused.py": "X = 1\n",
    }.items():
        (package / name).write_text(text)
    return tmp_path


def geosweep(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return fresh(*words, cwd=folder)


def run(folder: Path, name: str, *words: str, cache: str = "null", limit: str = "") -> subprocess.CompletedProcess[str]:
    file = folder / f"{name}.yaml"
    file.write_text(SWEEP.format(name=name, cache=cache, limit=limit))
    return geosweep(folder, "run", str(file), "--executor", "debug", "--no-tracking", *words)


def results(folder: Path, name: str) -> dict[str, dict[str, object]]:
    found = {}
    for path in sorted((folder / "runs").glob(f"{name}-*/trials/*/result.json")):
        found[path.parent.name] = json.loads(path.read_text())
    return found


def test_what_a_task_imports_is_found_and_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    names = set(source.files(["mine.line:Line", "sgd"]))
    assert {n for n in names if n.startswith("mine/")} == {
        f"mine/{n}.py" for n in ("__init__", "line", "score", "factor")
    }
    assert {"optim_core/sam.py", "trainables/loop.py", "orchestrator/trial/session.py"} <= names
    assert not any(n.startswith(("torch", "numpy", "orchestrator/cli")) for n in names)


@pytest.mark.parametrize(
    "name, module",
    [("digits", ""), ("sgd", ""), ("rotated(sgd)", ""), ("a.b:C", "a.b"), ("a.b.C", "a.b"), ("rotated(a.b.C)", "a.b")],
)
def test_modules_of_names(name: str, module: str) -> None:
    assert source.module_of(name) == module


@pytest.mark.slow
def test_a_result_of_other_code_is_never_taken_over(folder: Path) -> None:
    """The helper changes, the sweep gets another name: everything is trained anew, also when a cache is asked for."""
    for cache in ("null", "true"):
        (folder / "mine" / "factor.py").write_text("FACTOR = 1.0\n")
        assert run(folder, f"first-{cache}", cache=cache).returncode == 0
        (folder / "mine" / "factor.py").write_text("FACTOR = 1000.0\n")
        assert run(folder, f"second-{cache}", cache=cache).returncode == 0
        first, second = results(folder, f"first-{cache}"), results(folder, f"second-{cache}")
        assert not any(r["cached_from"] for r in second.values())
        assert all(second[t]["value"] == pytest.approx(1000 * first[t]["value"]) for t in first)  # type: ignore[operator]
    assert run(folder, "third-true", cache="true").returncode == 0
    assert all(r["cached_from"] for r in results(folder, "third-true").values()), "unchanged code is taken over"
    assert run(folder, "third-null").returncode == 0
    assert not any(r["cached_from"] for r in results(folder, "third-null").values()), (
        "of a task of one's own only if asked"
    )


@pytest.mark.slow
def test_changed_code_refuses_to_go_on_and_shows(folder: Path) -> None:
    assert run(folder, "one").returncode == 0
    assert geosweep(folder, "verify").returncode == 0
    (folder / "mine" / "factor.py").write_text("FACTOR = 2.0\n")
    (folder / "mine" / "unused.py").write_text("X = 2\n")
    verified = geosweep(folder, "verify", "--json")
    assert verified.returncode == 7
    assert json.loads(verified.stdout)["changed_files"] == ["mine/factor.py"]
    done = run(folder, "one")
    assert done.returncode == 0, "nothing is left to train"
    trial = next((folder / "runs").glob("one-*/trials/*-s1001"))
    for path in trial.iterdir():
        path.unlink()
    refused = run(folder, "one")
    assert refused.returncode == 7
    assert "mine/factor.py changed since one-" in refused.stderr
    assert "--accept-changed-code" in refused.stderr
    assert not (trial / "result.json").exists()
    accepted = run(folder, "one", "--accept-changed-code")
    assert accepted.returncode == 0
    assert "exploratory: code changed between trials: mine/factor.py" in accepted.stdout
    assert geosweep(folder, "verify").returncode == 0, "what was accepted is in force"


@pytest.mark.slow
def test_a_worker_with_other_code_shows(folder: Path) -> None:
    assert run(folder, "one").returncode == 0
    path = next((folder / "runs").glob("one-*/trials/*-s1001")) / "result.json"
    kept = json.loads(path.read_text())
    assert len(kept["code"]) == 64
    path.write_text(json.dumps({**kept, "code": "0" * 64}))
    verified = geosweep(folder, "verify", "--json")
    assert verified.returncode == 7
    assert any("code other than the sealed" in p for p in json.loads(verified.stdout)["problems"])
    assert os.path.exists(path)


def test_the_digest_is_of_the_code_that_the_process_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file edited between the first trials of two names in it: both ran what was loaded, and no cache keeps them."""
    monkeypatch.syspath_prepend(str(folder))
    (folder / "pair.py").write_text("class A: ...\nclass B: ...\n")
    before = source.digests(["pair:A"])["pair.py"]
    assert source.unchanged(["pair:A"])
    (folder / "pair.py").write_text("class A: ...\nclass B: x = 1\n")
    assert source.digests(["pair:B"])["pair.py"] == before
    assert source.digests(["pair:B"], fresh=True)["pair.py"] != before
    assert not source.unchanged(["pair:B"])


def test_an_edit_of_the_same_size_and_time_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    path = folder / "same_size.py"
    path.write_text("class A: x = 1\n")
    assert source.unchanged(["same_size:A"])
    before = path.stat()
    time.sleep(0.02)  # a file system's clock ticks every few milliseconds
    path.write_text("class A: x = 2\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not source.unchanged(["same_size:A"])
    path.write_text("class A: x = 1\n")
    assert source.unchanged(["same_size:A"]), "what was loaded is there again"


@pytest.mark.slow
def test_sweeps_of_other_code_are_not_compared(folder: Path) -> None:
    assert run(folder, "one").returncode == 0
    (folder / "mine" / "factor.py").write_text("FACTOR = 0.5\n")
    assert run(folder, "two").returncode == 0
    names = [path.name for path in sorted((folder / "runs").iterdir()) if path.name.startswith(("one-", "two-"))]
    refused = geosweep(folder, "compare", *names)
    assert refused.returncode != 0
    assert "ran with different source code (mine/factor.py); run both with the same code" in refused.stderr.replace(
        "\n", " "
    )
    (folder / "mine" / "factor.py").write_text("FACTOR = 1.0\n")
    assert run(folder, "three").returncode == 0
    three = next(path.name for path in (folder / "runs").iterdir() if path.name.startswith("three-"))
    assert "2 confirm seeds; with fewer than 6" in geosweep(folder, "compare", names[0], three).stderr, (
        "code is no obstacle"
    )
