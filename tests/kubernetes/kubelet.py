"""Jobs that read logs, played: their commands are run for real on a folder in the place of the claim."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.kubernetes.api_server import ApiServer


def keep(place: Path, sweep: str) -> Path:
    """A sweep's folder with logs of two drivers and of a trial."""
    kept = place / "runs" / sweep
    trial = kept / "trials" / "sgd-0000-s0"
    trial.mkdir(parents=True)
    (kept / "resolved.json").write_text("{}")
    (kept / "driver-20261127T000000Z.log").write_text("a first head\n")
    (kept / "driver-20261127T000500Z.log").write_text("its successor\n")
    (trial / "trial.json").write_text("{}")
    (trial / "stdout.log").write_text("step 1\nstep 2 \N{CHECK MARK}\n")
    (trial / "stderr.log").write_text("a warning\n")
    return kept


def kubelet(server: ApiServer, runs: Path) -> list[dict[str, Any]]:
    """Runs the commands of Jobs for real, `runs` in the place of the claim; the Jobs that were made."""
    made: list[dict[str, Any]] = []

    def play(job: dict[str, Any]) -> None:
        made.append(job)
        (box,) = job["spec"]["template"]["spec"]["containers"]
        assert box["command"][-2:] == ["--root", "/runs"]
        words = [str(runs) if word == "/runs" else word for word in box["command"][1:]]
        program = [sys.executable, "-c", "from orchestrator.cli import main; main()", *words]
        done = subprocess.run(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        name = job["metadata"]["name"]
        server.pod(f"{name}-x", done.stdout, "Failed" if done.returncode else "Succeeded", **{"job-name": name})

    server.play = play
    return made
