"""A tracking server that can be killed, a cluster that can lose nodes, and what a killed worker was holding."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class MlflowServer:
    """`mlflow server` with a database file in `place`, always on the same port."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}"
        self._command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            f"sqlite:///{place}/server.db",
        ]
        self._command += ["--default-artifact-root", str(place / "artifacts"), "--host", "127.0.0.1"]
        self._command += ["--port", str(port), "--workers", "1"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        more = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = subprocess.Popen(
            self._command,
            env={**os.environ, **more},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def wait(self, seconds: float = 120) -> None:
        deadline = time.time() + seconds
        while time.time() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError(f"{self.uri} does not answer")


@contextmanager
def ray_cluster(num_cpus: int) -> Iterator[tuple[Any, str]]:
    """(a cluster of one node, the folder whose name its processes carry); its files stay out of Ray's usual place."""
    with (
        tempfile.TemporaryDirectory(prefix="gs-cluster-", dir="/tmp", ignore_cleanup_errors=True) as place,
        pytest.MonkeyPatch.context() as patch,
    ):
        (Path(place) / "ray").mkdir()
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "120")
        patch.setenv("RAY_TMPDIR", place)
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": num_cpus, "include_dashboard": False})
        try:
            yield cluster, place
        finally:
            cluster.shutdown()


def trials_of(process: int) -> list[Path]:
    """Folders of the trials that a process holds locked."""
    found = []
    for descriptor in Path(f"/proc/{process}/fd").glob("*"):
        try:
            target = Path(os.readlink(descriptor))
        except OSError:
            continue
        if target.name == "lock" and target.parent.parent.name == "trials":
            found.append(target.parent)
    return found
