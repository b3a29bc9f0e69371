"""A real PostgreSQL server that can be killed and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


class Postgres:
    """A server in a folder of its own, as an unprivileged user."""

    def __init__(self, place: Path) -> None:
        self._bin, self._place = BINARIES[-1], place
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"postgresql+psycopg://geosweep@127.0.0.1:{self._port}/postgres"
        self._call("initdb", "-D", f"{place}/data", "-U", "geosweep", "-A", "trust", "--no-sync")

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._place}"
        self._call("pg_ctl", "-D", f"{self._place}/data", "-o", options, "-l", f"{self._place}/log", "-w", "start")

    def kill(self) -> None:
        self._call("pg_ctl", "-D", f"{self._place}/data", "-m", "immediate", "-w", "stop")

    def _call(self, program: str, *words: str) -> None:
        command = [str(self._bin / program), *words]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "nobody", "--", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/tmp", timeout=60)


@contextmanager
def running() -> Iterator[Postgres]:
    """A server that runs; the test is skipped where there is none."""
    if not BINARIES:
        pytest.skip("no PostgreSQL server under /usr/lib/postgresql (Debian: apt install postgresql)")
    place = Path(tempfile.mkdtemp(prefix="gs-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(place, nobody.pw_uid, nobody.pw_gid)
    server = Postgres(place)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(place, ignore_errors=True)
