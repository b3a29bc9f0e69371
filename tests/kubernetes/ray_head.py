"""A Ray head of a test's own: token authentication, ports and a folder that nobody else uses, ended by its pid."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).parents[2]
TOKEN = "a-token-of-this-test-that-is-long-enough"
PORTS = (
    "--port",
    "--dashboard-port",
    "--dashboard-agent-listen-port",  # a second Ray on the host with the same one takes over its jobs
    "--dashboard-agent-grpc-port",
    "--metrics-export-port",
    "--ray-client-server-port",
)


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in found:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in found]


def environment(**more: str) -> dict[str, str]:
    """Of the head and of whoever talks to it; like in a Pod, everything is on the PATH."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "GEOSWEEP_"))}
    ours |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    return {**ours, "PATH": f"{BIN}:{ours['PATH']}", "PYTHONPATH": str(REPOSITORY), "COLUMNS": "150", **more}


def code(url: str, token: str = TOKEN) -> int:
    """Status of a GET; 0 when nobody answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@dataclass(frozen=True)
class Head:
    """A running head."""

    address: str
    """Its dashboard's URL."""
    agent: str
    """The URL of its dashboard agent, which the operator's probes ask."""
    metrics: str
    """The URL that Prometheus asks."""
    process: subprocess.Popen[bytes]

    def lose(self) -> None:
        """What the loss of its machine does: everything that it started, workers and drivers too, is gone at once."""
        for pid in (self.process.pid, *descendants(self.process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)


def descendants(of: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found = [of]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


@contextmanager
def head(cpus: int = 2, **more: str) -> Iterator[Head]:
    """A head that answers; `more`: further variables of its environment."""
    ports = free_ports(len(PORTS))
    with tempfile.TemporaryDirectory(prefix="gsh", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [str(BIN / "ray"), "start", "--head", "--block", f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1"]
        command += [f"{name}={port}" for name, port in zip(PORTS, ports, strict=True)]
        log = Path(folder) / "head.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [*command, f"--temp-dir={folder}"],
                env=environment(**more),
                cwd=folder,
                start_new_session=True,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        address = f"http://127.0.0.1:{ports[1]}"
        try:
            deadline = time.monotonic() + 120
            while code(f"{address}/api/jobs/") != 200:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the head did not start: {log.read_text()[-2000:]}")
                time.sleep(0.5)
            yield Head(address, f"http://127.0.0.1:{ports[2]}", f"http://127.0.0.1:{ports[4]}/metrics", process)
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)  # ray start --block ends what it started
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(30)
