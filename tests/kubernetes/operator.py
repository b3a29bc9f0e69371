"""What the KubeRay operator (1.7.0) makes of a RayJob whose entrypoint ends, played: facts, none of its code.

- One Ray job runs on one cluster. Code 0 is SUCCEEDED, any other FAILED.
- SUCCEEDED makes the RayJob Complete. FAILED makes it Failed with reason AppFailed, and counts as a failure; while
  there are fewer failures than backoffLimit + 1 it is tried again: a new cluster, a new id, the same entrypoint.
- A head that is lost is made anew in the same cluster. The submitter, a Job of Kubernetes, fails with it and its next
  Pod submits the same id again, `submitterConfig.backoffLimit` times; then the RayJob is Failed with SubmissionFailed.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
Meanwhile = Callable[["subprocess.Popen[str]", int], None]
"""Called with each run of the entrypoint as it begins, and its number from 1."""


def nothing(running: subprocess.Popen[str], number: int) -> None:
    """Let it run."""


@dataclass(kw_only=True)
class Operator:
    """Carries a rendered RayJob out, with `places` of Pods as they are on this machine."""

    job: Mapping[str, Any]
    places: Mapping[str, str]
    clusters: int = 0
    heads: int = 0
    codes: list[int] = field(default_factory=list)
    log: str = ""

    def run(self, meanwhile: Meanwhile = nothing) -> dict[str, Any]:
        """The RayJob's status once it is over."""
        failed, limit = 0, self.job["spec"].get("backoffLimit", 0)
        while True:
            self.clusters += 1
            outcome, reason = self._cluster(meanwhile)
            if outcome == "SUCCEEDED":
                return {"jobStatus": outcome, "jobDeploymentStatus": "Complete", "failed": failed}
            failed += 1
            if failed >= limit + 1:
                return {"jobStatus": outcome, "jobDeploymentStatus": "Failed", "reason": reason, "failed": failed}

    def _cluster(self, meanwhile: Meanwhile) -> tuple[str, str]:
        for _ in range(self.job["spec"]["submitterConfig"]["backoffLimit"] + 1):
            self.heads += 1
            running = self._entrypoint()
            meanwhile(running, self.heads)
            assert running.stdout is not None
            self.log += running.stdout.read()
            code = running.wait(120)
            self.codes.append(code)
            if code >= 0:
                return ("SUCCEEDED", "") if code == 0 else ("FAILED", "AppFailed")
        return "FAILED", "SubmissionFailed"

    def _entrypoint(self) -> subprocess.Popen[str]:
        line = self.job["spec"]["entrypoint"]
        for theirs, ours in self.places.items():
            assert theirs in line, theirs
            line = line.replace(theirs, ours)
        program, *words = shlex.split(line)
        assert program == "geosweep"
        return subprocess.Popen(
            [sys.executable, "-c", "from orchestrator.cli import main; main()", *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *self._paths()])},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _paths(self) -> list[str]:
        return [str(Path(ours).parent) for ours in self.places.values() if ours.endswith(".yaml")]


def lose_head(running: subprocess.Popen[str]) -> None:
    """All processes of a Pod die at once."""
    os.killpg(running.pid, signal.SIGKILL)


def kill_driver(running: subprocess.Popen[str]) -> None:
    """The driver alone dies, as when the kernel takes the largest process of a Pod."""
    deadline = time.monotonic() + 60
    while not (found := Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(int(found[0]), signal.SIGKILL)
