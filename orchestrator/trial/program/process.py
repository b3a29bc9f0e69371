"""A script in its own process under a keeper: start, read, stop, end, report the end.

A thread of the worker reads its output as fast as it comes, so a script never blocks on its worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.trial import log_files
from orchestrator.trial.program.output import Lines, Printed

KEEPER = Path(__file__).with_name("keeper.py")
TOKEN = "GEOSWEEP_TRIAL_TOKEN"
GRACE_S, DRAIN_S = 10.0, 2.0
"""Seconds between SIGTERM and SIGKILL; seconds to wait for pending output after the end."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the process ended."""

    code: int | None
    """Exit code, -N for signal N; None if the keeper was killed with it, or it could not be started."""
    left: int = 0
    """Processes that it left behind and that had to be killed."""
    told: str = ""
    """How this worker ended it: terminated, killed; empty: it ended by itself."""
    failed: str = ""
    """Why it could not be started."""
    rest: str = ""
    """The last line of its output, if it has no line end."""


class Script:
    """One run of a script. `heard(line)` is called in another thread for each line of its standard output."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        logs: Path,
        token: str,
        heard: Callable[[str], None],
        grace: float = GRACE_S,
    ) -> None:
        end_leftovers(token)
        self._token, self._grace, self._heard = token, grace, heard
        self._logs = {name: Printed(logs / log_files.file_name(name)) for name in log_files.STREAMS}
        pipes = {name: os.pipe() for name in ("stdout", "stderr", "status")}
        given = json.dumps({"command": list(command), "status": pipes["status"][1], "grace": grace})
        self._ended: Ended | None = None
        self._over = threading.Event()
        self.spoke = time.monotonic()
        """The time of its last output."""
        try:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(KEEPER), given],
                stdin=subprocess.PIPE,
                stdout=pipes["stdout"][1],
                stderr=pipes["stderr"][1],
                pass_fds=(pipes["status"][1],),
                start_new_session=True,
                cwd=cwd,
                env={**env, TOKEN: token},
            )
        finally:
            for _, write in pipes.values():
                os.close(write)
        reads = {name: read for name, (read, _) in pipes.items()}
        threading.Thread(target=self._listen, args=(reads,), daemon=True, name="script").start()

    @property
    def over(self) -> bool:
        """Whether it has ended and all its output has been read."""
        return self._over.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait this long for its end."""
        return self._over.wait(seconds)

    def ended(self) -> Ended:
        """How it ended; call after `over`."""
        assert self._ended is not None
        return self._ended

    def freeze(self) -> None:
        """Suspend it."""
        self._tell("S")

    def thaw(self) -> None:
        """Resume it."""
        self._tell("C")

    def end(self, *, kill: bool = False) -> Ended:
        """SIGTERM, and SIGKILL after the grace period; returns when none of its processes is left."""
        if not self.over:
            self._tell("K" if kill else "T")
            if not self.wait(self._grace + 15.0):
                with contextlib.suppress(OSError):
                    os.killpg(self._keeper.pid, signal.SIGKILL)
                self.wait(5.0)
        end_leftovers(self._token)
        return self._ended or Ended(code=None, told="killed")

    def _tell(self, letter: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            assert self._keeper.stdin is not None
            self._keeper.stdin.write(letter.encode())
            self._keeper.stdin.flush()

    def _listen(self, reads: Mapping[str, int]) -> None:
        lines, status = Lines(), b""
        with selectors.DefaultSelector() as ready:
            for name, fd in reads.items():
                os.set_blocking(fd, False)
                ready.register(fd, selectors.EVENT_READ, name)
            deadline = None
            while ready.get_map():
                for key, _ in ready.select(0.2 if deadline else None):
                    data = _read(key.fd)
                    if data == b"":
                        ready.unregister(key.fd)
                        os.close(key.fd)
                        if key.data == "status":  # the keeper is gone: only pending output is left
                            deadline = time.monotonic() + DRAIN_S
                    elif data is not None and key.data == "status":
                        status += data
                    elif data is not None:
                        self.spoke = time.monotonic()
                        self._logs[key.data].write(data)
                        if key.data == "stdout":
                            for line in lines.feed(data):
                                self._heard(line)
                if deadline is not None and time.monotonic() > deadline:
                    break
            for key in list((ready.get_map() or {}).values()):
                os.close(key.fd)
        rest = lines.rest()
        if rest:
            self._heard(rest)
        for log in self._logs.values():
            log.close()
        self._ended = replace(_told(status), rest=rest)
        self._keeper.wait()
        if self._keeper.stdin is not None:
            with contextlib.suppress(OSError):
                self._keeper.stdin.close()
        if self._ended.code is None:
            end_leftovers(self._token)
        self._over.set()


def _read(fd: int) -> bytes | None:
    try:
        return os.read(fd, 1 << 16)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _told(status: bytes) -> Ended:
    """The last status reported by the keeper."""
    for line in reversed(status.decode("utf-8", "replace").splitlines()):
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if "failed" in said:
                return Ended(code=None, failed=said["failed"])
            if "ended" in said:
                told = said["told"] if said["told"] != "orphaned" else "killed"
                return Ended(code=said["ended"], left=said["left"], told=told)
    return Ended(code=None)


def end_leftovers(token: str) -> int:
    """Kill every process of this user that carries the token of a trial; returns how many. Linux only."""
    wanted, found = f"{TOKEN}={token}".encode(), 0
    for _ in range(20):
        alive = 0
        for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
            if name.isdigit() and int(name) != os.getpid():
                with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as environ:
                    if wanted in environ.read().split(b"\0"):
                        os.kill(int(name), signal.SIGKILL)
                        alive += 1
        if not alive:
            break
        found += alive
        time.sleep(0.05)
    return found
