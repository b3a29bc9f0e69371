"""The studies in a real PostgreSQL that is killed and started again in the middle of a sweep."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from orchestrator import results, runner, spec
from orchestrator.executors.debug import DebugExecutor
from orchestrator.search.optuna import storage
from orchestrator.tracking.base import NoTracker
from tests.orchestrator.sweep_files import sweep_text

pytestmark = pytest.mark.slow
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


@pytest.fixture
def postgres() -> Iterator[Postgres]:
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


def test_a_database_that_dies_and_comes_back_loses_nothing(postgres: Postgres, tmp_path: Path) -> None:
    text = sweep_text(method="tpe", trials=8, confirm=2)
    definition = spec.loads(text, "test.yaml")
    found = {}
    for name, url in (("journal", None), ("postgres", postgres.url)):
        folder = runner.open_folder(definition, text, tmp_path / name, {})

        class Restarting(DebugExecutor):
            """Kills the server after the fifth trial; it is back a second later, while the driver waits for it."""

            def run(self, conductor: Any) -> None:
                told = 0
                heard = conductor.heard

                def hearing(report: Any) -> bool:
                    nonlocal told
                    told += report.done
                    if told == 5 and report.done:
                        postgres.kill()
                        threading.Thread(target=lambda: (time.sleep(1.0), postgres.start())).start()
                    return bool(heard(report))

                conductor.heard = hearing
                super().run(conductor)

        executor = Restarting() if url else DebugExecutor()
        with folder.hold():
            assert runner.run(definition, folder, executor, NoTracker(), storage_url=url).state == "done"
        kept = storage(folder.journal, url)
        studies = [optuna.load_study(study_name=f"{folder.sweep_id}/{arm}", storage=kept) for arm in ("sgd", "adamw")]
        found[name] = [[(t.state.name, t.params, t.value) for t in s.trials] for s in studies]
        assert len(results.ended_trials(folder)) == 20
        assert folder.journal.exists() == (url is None)
    assert found["journal"] == found["postgres"]
