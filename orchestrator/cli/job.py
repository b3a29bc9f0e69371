"""`run --as-job`: a sweep as the one command of a job that others start, such as the KubeRay operator.

An operator sees only an exit code, and takes any but 0 for a failure that a whole new cluster might cure. So the driver
is a child of this process. An intended end (done, a budget spent, stopped) gives code 0. A fault of a machine or a
service (the driver was killed, nothing answers) is retried here, on the existing machines, from the newest checkpoints.
Anything else ends at once with the code of `run`, because a retry would end the same way. The last line printed says
how it ended; the driver's output is kept in the sweep's folder, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from orchestrator.cli.app import Exit
from orchestrator.cli.ending import NOTE, kind
from orchestrator.storage import ending
from orchestrator.storage.ending import Ending
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial import log_files

PAUSES_S = (10.0, 30.0, 60.0, 120.0, 300.0)
"""Pauses before each retry; another head's lock on NFS is free after 90 s."""
LONG_S = 1800.0
"""An attempt that ran this long ends a series of failures."""
LOG_LIMIT = 1 << 20
LAST_WORDS_S = 3.0
DRIVER = (sys.executable, "-c", "from orchestrator.cli import main; main()")


def driver_logs(names: Sequence[str]) -> list[str]:
    """The driver logs among these names, oldest first."""
    return sorted(name for name in names if name.startswith("driver-") and name.endswith(".log"))


class Supervisor:
    """Drives one sweep to an end, retrying after faults."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        pauses_s: Sequence[float] = PAUSES_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command, self._pauses_s, self._clock = list(command), pauses_s, clock
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._log = DriverLog()

    def run(self) -> int:
        """Returns the exit code of the job."""
        with self._told():
            how = self._attempts()
        self._say(how.line())
        self._log.close()
        return 0 if how.is_meant else how.exit_code if how.exit_code > 0 else int(Exit.UNREACHABLE)

    def _attempts(self) -> Ending:
        pauses, last = list(self._pauses_s), ""
        while True:
            began = self._clock()
            how = self._attempt()
            if how.ending != ending.FAULT or self._stopping.is_set():
                return how
            if self._clock() - began > LONG_S:
                pauses, last = list(self._pauses_s), ""
            if how.exit_code == Exit.UNEXPECTED and how.reason == last:
                return replace(how, ending=ending.FAILED, reason=f"{how.reason} (twice in a row)")
            if not pauses:
                return replace(how, reason=f"{how.reason} ({len(self._pauses_s) + 1} attempts in a row)")
            last, pause = how.reason, pauses.pop(0)
            self._say(f"{how.reason}; retrying in {pause:g} s")
            if self._stopping.wait(pause):
                return _stopped()

    def _attempt(self) -> Ending:
        """One driver from start to end."""
        with tempfile.TemporaryDirectory() as folder:
            note = Path(folder) / "note.json"
            environment = {**os.environ, NOTE: str(note), "PYTHONUNBUFFERED": "1"}
            self._child = subprocess.Popen(
                self._command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            assert self._child.stdout is not None
            reader = threading.Thread(target=self._read, args=(self._child.stdout, note), daemon=True)
            reader.start()
            if self._stopping.is_set():
                self._child.terminate()
            code = self._child.wait()
            reader.join(LAST_WORDS_S)  # processes that the driver started may hold the pipe open
            said = _read(note)
            self._log.at(said)
        found = ending.of(said.get("ended"))
        if found is not None and (code >= 0 or found.is_meant):
            return found
        if self._stopping.is_set():
            return _stopped()
        why = f"the driver was killed by signal {-code}" if code < 0 else f"the driver ended with code {code}"
        return Ending(ending=kind(code), exit_code=code, reason=why, when=ending.now())

    def _read(self, pipe: IO[bytes], note: Path) -> None:
        with contextlib.suppress(ValueError):
            while part := os.read(pipe.fileno(), 1 << 16):
                self._write(part)
                self._log.at(_read(note))

    def _say(self, line: str) -> None:
        self._write(f"{line}\n".encode())

    def _write(self, part: bytes) -> None:
        if (binary := getattr(sys.stdout, "buffer", None)) is not None:
            binary.write(part)
        else:
            sys.stdout.write(part.decode(errors="replace"))
        sys.stdout.flush()
        self._log.write(part)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C drain the driver, and no retry follows. A repeated signal counts once."""

        def ask(number: int, frame: Any) -> None:
            self._stopping.set()
            if number == signal.SIGTERM and self._child is not None and self._child.poll() is None:
                self._child.send_signal(number)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _stopped() -> Ending:
    reason = "stopped before or between attempts; it continues when run again"
    return Ending(ending=ending.STOPPED, exit_code=int(Exit.INTERRUPTED), reason=reason, when=ending.now())


def _read(note: Path) -> dict[str, Any]:
    try:
        found = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class DriverLog:
    """The drivers' output, kept in the sweep's folder as driver-TIME.log as soon as the folder exists."""

    def __init__(self) -> None:
        self._name = time.strftime("driver-%Y%m%dT%H%M%SZ.log", time.gmtime())
        self._held: list[bytes] = []
        self._folder: SweepFolder | None = None

    def at(self, said: Mapping[str, Any]) -> None:
        """The location of its sweep, as noted by the driver."""
        if self._folder is None and said.get("sweep_id"):
            found = SweepFolder(Path(said["root"]), said["sweep_id"])
            if (found.path / "resolved.json").exists():
                self._folder = found
                self.write(b"")

    def write(self, part: bytes) -> None:
        """Append to it; on a full disk nothing is kept."""
        self._held.append(part)
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            path = self._folder.path / self._name
            with path.open("ab") as out:
                out.write(b"".join(self._held))
            log_files.bound(path, LOG_LIMIT)
        self._held.clear()

    def close(self) -> None:
        """No more output follows."""
        if self._folder is not None:
            ending.publish(self._folder, self._name)
