"""Trials that bring down their own workers, on real Ray: killed for memory, hung, crashed. The sweep goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from orchestrator import results
from orchestrator.storage.folder import find
from tests.orchestrator.command import check_mlflow, finish, in_this_process, say, start, values
from tests.orchestrator.sweep_files import sweep_text

pytestmark = pytest.mark.long
GIB = 2**30


def memory() -> tuple[int, int]:
    """(total, available), bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    found = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":", 1) for line in lines)}
    return found["MemTotal"], found["MemAvailable"]


def sweep(tmp_path: Path, name: str, troubles: list[str]) -> Path:
    text = yaml.safe_load(sweep_text(method="random", trials=2, confirm=6, per_trial=40, pause_s=0.02, max_failed=9))
    del text["arms"]["adamw"]
    text["task"] = {
        "name": "tests.tasks:Troubled",
        "troubles": troubles,
        "note": str(tmp_path / "note"),
        "pause_s": 0.02,
    }
    text["training"] = {"step_timeout": "20s"}
    file = tmp_path / name / "fit.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(text))
    return file


def test_memory_kills_a_hang_and_a_crash_in_one_sweep(tmp_path: Path) -> None:
    """One trial needs too much once, one always; one hangs in C, one crashes. All others end as if alone."""
    total, available = memory()
    if available < 10 * GIB:
        pytest.skip(f"a trial has to be able to take 4 GiB; {available / GIB:.1f} GiB are free")
    file = sweep(tmp_path, "troubled", ["1001 hog once", "1002 hog", "1003 hang", "1004 segfault"])
    process = start(
        file,
        RAY_memory_usage_threshold=f"{(total - available + 3.5 * GIB) / total:.3f}",
        RAY_memory_monitor_refresh_ms="100",
    )
    out = finish(process, 280)
    assert process.returncode == 0, out
    folder = find(file.parent / "runs", "@last")
    states = {t.job.seed: t.result.state for t in results.ended_trials(folder) if t.job.stage == "confirm"}
    failed = {1002: "FAILED", 1003: "FAILED", 1004: "FAILED"}
    assert states == {1000: "COMPLETE", 1001: "COMPLETE", **failed, 1005: "COMPLETE"}
    errors = {t.job.seed: t.result.error for t in results.ended_trials(folder) if t.result.error}
    print(json.dumps(errors, indent=1).replace("\\n", "\n"))
    assert "3 times without a new checkpoint the node ran out of memory" in errors[1002]
    assert "GB limit" in errors[1002]
    assert "hang.txt: Timeout" in errors[1003]
    assert "in batch" in errors[1003]
    assert "3 times without a new checkpoint its worker's process died" in errors[1004]
    assert "in batch" in errors[1004]
    shown = say("status", folder.sweep_id, "--root", str(folder.root))
    assert all(f"-s{seed} failed:" in shown for seed in failed)
    assert "in batch" in shown
    plain = values(in_this_process(sweep(tmp_path, "plain", [])))
    found = values(folder)
    assert all(found[trial] == points for trial, points in plain.items() if int(trial.split("-s")[1]) not in failed)
    states_of = {t.trial_id: t.result.state for t in results.ended_trials(folder)}
    check_mlflow(folder, states=states_of, arms={"sgd": 3})
