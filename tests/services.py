"""Real services that tests start beside themselves: PostgreSQL, MLflow, an S3 server (moto's, over HTTP)."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}

S = TypeVar("S", bound=HTTPServer)


@contextmanager
def serving(http: S) -> Iterator[S]:
    """The server, answering in a thread."""
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield http
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class MlflowServer:
    """`mlflow server`, with a database and artifacts in `place` if nothing else is said; always on the same port."""

    def __init__(self, place: Path, store: str = "", artifacts: str = "") -> None:
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        words = ("--backend-store-uri", store or f"sqlite:///{place}/server.db", "--default-artifact-root",
                 artifacts or str(place / "artifacts"), "--host", "127.0.0.1", "--port", str(port))  # fmt: skip
        self._command = [sys.executable, "-m", "mlflow", "server", *words, "--workers", "1"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        more = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(self._command, env={**os.environ, **more}, start_new_session=True, **quiet)

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
    def running(self) -> Iterator[str]:
        """Its address, while it answers."""
        self.start()
        try:
            self.wait()
            yield self.uri
        finally:
            self.kill()


class Postgres:
    """A server in a folder of its own, as an unprivileged user."""

    def __init__(self, place: Path, host: str = "127.0.0.1") -> None:
        self._bin, self._place, self._host = BINARIES[-1], place, host
        self._port = free_port(host)
        self.url = f"postgresql+psycopg://geosweep@{host}:{self._port}/postgres"
        self._call("initdb", "-D", f"{place}/data", "-U", "geosweep", "-A", "trust", "--no-sync")
        with (place / "data" / "pg_hba.conf").open("a") as out:
            out.write("host all all samenet trust\n")

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses={self._host} -c unix_socket_directories={self._place}"
        self._call("pg_ctl", "-D", f"{self._place}/data", "-o", options, "-l", f"{self._place}/log", "-w", "start")

    def kill(self) -> None:
        self._call("pg_ctl", "-D", f"{self._place}/data", "-m", "immediate", "-w", "stop")

    def _call(self, program: str, *words: str) -> None:
        command = [str(self._bin / program), *words]
        nobody = pwd.getpwnam("nobody")  # the server refuses to run as root
        as_nobody: dict[str, Any] = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        who = as_nobody if os.geteuid() == 0 else {}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/tmp", timeout=60, **who)


@contextmanager
def postgres_server(host: str = "127.0.0.1") -> Iterator[Postgres]:
    """A server that runs, and is gone afterwards. Skips the test where PostgreSQL is not installed."""
    if not BINARIES:
        pytest.skip("no PostgreSQL server under /usr/lib/postgresql (Debian: apt install postgresql)")
    place = Path(tempfile.mkdtemp(prefix="gs-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(place, nobody.pw_uid, nobody.pw_gid)
    server = Postgres(place, host)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def s3_server(bucket: str, host: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """An S3 server with one bucket, in threads of this process; yields the variables that lead to it."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=host, port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    variables = {**KEYS, "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}"}
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            boto3.client("s3").create_bucket(Bucket=bucket)
            yield variables
    finally:
        server.stop()
