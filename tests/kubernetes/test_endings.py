"""How a rendered sweep ends on a cluster: by its own entrypoint, under a played operator."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.kubernetes.code import MOUNT
from orchestrator.kubernetes.profiles import ROOT, tracking
from orchestrator.kubernetes.render import render
from orchestrator.storage import ending
from orchestrator.storage.folder import find
from tests.kubernetes.operator import Meanwhile, Operator, kill_driver, lose_head, nothing
from tests.orchestrator.sweep_files import sweep_text

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]
SLOWLY = {"trials": 6, "confirm": 2, "pause_s": 0.03}


def begun(root: Path) -> None:
    """Wait until a trial has measured something."""
    deadline = time.monotonic() + 60
    while not list(root.glob("*/trials/*/metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stopped(file: Path, root: Path) -> Meanwhile:
    def act(running: subprocess.Popen[str], number: int) -> None:
        begun(root)
        find(root, "@last").ask_to_stop()

    return act


def driver_killed_once(file: Path, root: Path) -> Meanwhile:
    def act(running: subprocess.Popen[str], number: int) -> None:
        begun(root)
        kill_driver(running)

    return act


def two_heads_lost(file: Path, root: Path) -> Meanwhile:
    def act(running: subprocess.Popen[str], number: int) -> None:
        if number < 3:
            begun(root)
            lose_head(running)

    return act


def file_spoilt(file: Path, root: Path) -> Meanwhile:
    file.write_text(file.read_text().replace("trials_per_arm", "trials_per_leg"))
    return nothing


def untouched(file: Path, root: Path) -> Meanwhile:
    return nothing


ENDINGS: list[tuple[str, dict[str, Any], Callable[[Path, Path], Meanwhile], tuple[str, int], int, int, str]] = [
    # what happens, the sweep, meanwhile, (ending, code at a laptop), heads, code of the job, status of the RayJob
    ("done", {"trials": 2, "confirm": 2}, untouched, ("done", 0), 1, 0, "SUCCEEDED"),
    ("wall clock spent", {**SLOWLY, "wall_clock": ", wall_clock: 1s"}, untouched, ("budget", 5), 1, 0, "SUCCEEDED"),
    (
        "evaluations spent",
        {"trials": 6, "confirm": 2, "wall_clock": ", grad_evals: 320"},
        untouched,
        ("budget", 5),
        1,
        0,
        "SUCCEEDED",
    ),
    ("stopped", SLOWLY, stopped, ("stopped", 130), 1, 0, "SUCCEEDED"),
    ("bad file", {}, file_spoilt, ("failed", 3), 1, 3, "FAILED"),
    ("unfair protocol", {"trials": 2, "confirm": 2}, untouched, ("failed", 6), 1, 6, "FAILED"),
    ("too many failed trials", {"trials": 2, "confirm": 2, "fail_at": 2}, untouched, ("failed", 8), 1, 8, "FAILED"),
    ("given up: all fail alike", {"trials": 9, "confirm": 2, "fail_at": 2}, untouched, ("failed", 8), 1, 8, "FAILED"),
    ("driver killed once", SLOWLY, driver_killed_once, ("done", 0), 1, 0, "SUCCEEDED"),
    ("head lost twice", SLOWLY, two_heads_lost, ("done", 0), 3, 0, "SUCCEEDED"),
]


def under_an_operator(file: Path, root: Path, *, fair: bool = False) -> Operator:
    """An operator that has the rendered RayJob of a sweep file."""
    *_, job = yaml.safe_load_all(render(file.read_text(), str(file), profile="kind", fair=fair))
    places = {
        f"{MOUNT}/sweep.yaml": str(file),
        f"--root {ROOT} ": f"--root {root} ",
        "--address auto": "--executor debug",
        f"--tracking-uri {tracking('sweeps')}": "--no-tracking",
    }
    return Operator(job=job, places=places)


@pytest.mark.parametrize(
    ("what", "given", "meanwhile", "how", "heads", "code", "status"), ENDINGS, ids=[e[0] for e in ENDINGS]
)
def test_one_cluster_for_every_ending(
    tmp_path: Path,
    what: str,
    given: dict[str, Any],
    meanwhile: Callable[[Path, Path], Meanwhile],
    how: tuple[str, int],
    heads: int,
    code: int,
    status: str,
) -> None:
    file, root = tmp_path / "sweep.yaml", tmp_path / "runs"
    file.write_text(sweep_text(**{"method": "random", **given}))
    operator = under_an_operator(file, root, fair=what == "unfair protocol")
    found = operator.run(meanwhile(file, root))
    print(f"{what}: {how}, clusters {operator.clusters}, heads {operator.heads}, codes {operator.codes}, {found}")
    assert (found["jobStatus"], operator.clusters) == (status, 1), operator.log
    assert (operator.heads, operator.codes[-1]) == (heads, code), operator.log
    ended = ending.in_log(operator.log)
    assert ended is not None
    assert (ended.ending, ended.exit_code) == how
    if word := {"bad file": "trials_per_leg", "unfair protocol": "GS120"}.get(what):
        assert word in ended.reason
        assert not list(root.glob("*/trials")), "nothing was started"
        return
    sweep = find(root, "@last")
    assert ending.read(sweep) == ended
    logs = sorted(sweep.path.glob("driver-*.log"))
    assert len(logs) > 1 or heads == 1, "what the driver of a lost head printed is kept, too"
    assert logs[-1].read_text().splitlines()[-1] == ended.line()


def test_changed_code_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, root, module = tmp_path / "sweep.yaml", tmp_path / "runs", tmp_path / "own_task.py"
    module.write_text("from tests.tasks import Fit\n\n\nclass Own(Fit):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    file.write_text(sweep_text(method="random", **SLOWLY).replace("tests.tasks:Fit", "own_task:Own"))
    first = under_an_operator(file, root)
    assert first.run(stopped(file, root))["jobStatus"] == "SUCCEEDED", first.log
    module.write_text(module.read_text().replace("pass", "EPSILON = 1e-3"))
    second = under_an_operator(file, root)
    assert second.run()["jobStatus"] == "FAILED", second.log
    assert (second.clusters, second.codes) == (1, [7])
    ended = ending.read(find(root, "@last"))
    assert ended is not None
    assert (ended.ending, ended.exit_code) == ("failed", 7)
    assert "own_task" in ended.reason
