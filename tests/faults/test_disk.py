"""A disk that is full in the middle of a sweep on Ray: the run stops and names it, the same command goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.storage.folder import find
from tests.orchestrator.command import check_mlflow, ended, finish, in_this_process, start, values, wait_for
from tests.orchestrator.small_disk import fill, mounted
from tests.orchestrator.sweep_files import sweep_text

pytestmark = pytest.mark.long


def test_a_full_disk_stops_the_run_and_the_same_command_finishes_it(tmp_path: Path) -> None:
    with mounted(tmp_path / "runs") as small:
        file = tmp_path / "fit.yaml"
        file.write_text(sweep_text(method="random", trials=5, confirm=3, per_trial=40, pause_s=0.01))
        process = start(file)
        wait_for(file, 4, process)
        filler = small / "filler"
        deadline = time.time() + 90
        while process.poll() is None and time.time() < deadline:
            fill(filler)
            time.sleep(0.01)
        out = finish(process, 10)
        assert process.returncode == 75, out
        assert f"no space left on {small}" in out, out
        assert "run the same command again" in out
        assert "Traceback" not in out, out
        before = {p: p.read_bytes() for p in small.glob("*/trials/*/result.json")}
        assert 4 <= len(before) == ended(file) < 16
        refused = start(file)
        out = finish(refused)
        assert refused.returncode == 75, out
        assert f"no space left on {small}" in out, out
        filler.unlink()
        again = start(file)
        out = finish(again)
        assert again.returncode == 0, out
        folder = find(small, "@last")
        assert all(path.read_bytes() == content for path, content in before.items())
        assert values(folder) == values(in_this_process(file))
        assert not list(folder.path.glob("**/.*.json.*"))
        check_mlflow(folder)
        print(f"disk full after {len(before)} of 16 trials; all of them kept, the others trained once there was room")
