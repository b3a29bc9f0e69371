"""A small process between a worker and its script that guarantees no process of the script is left behind.

It is run by path with a bare interpreter and needs only the standard library. The script gets its own session. On Linux
the keeper is the subreaper of all descendants of the script, including those in sessions of their own, so it can end
all of them: when the script ends, on request, and when its worker is gone, which it notices by the end of its standard
input. If the keeper itself is killed, the kernel kills the script.

Standard input: one letter at a time: T terminate (SIGTERM, then SIGKILL after the grace period), K kill, S stop, C
continue. Descriptor `status`: one JSON line for the start, one for the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LAST_WORDS_S, KILL_S = 0.5, 10.0
"""Seconds that leftover processes get to end by themselves; seconds during which they are killed repeatedly."""


def prctl(option: int, value: int) -> None:
    """Linux only; a no-op elsewhere."""
    with contextlib.suppress(Exception):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Processes below `root`, deepest last; empty without /proc."""
    parents: dict[int, int] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as stat:
                    parents[int(name)] = int(stat.read().rpartition(b")")[2].split()[1])
    found, level = list[int](), {root}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found += sorted(level)
    return found


class Keeper:
    """Starts the script and stays until none of its processes is left."""

    def __init__(self, command: list[str], status: int, grace: float, parent: int) -> None:
        self._status, self._grace, self._parent = status, grace, parent
        self._code: int | None = None
        self._kill_at: float | None = None
        self._told = ""
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)
        self._wake, write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(write, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=self._in_the_child
            )
        except (OSError, ValueError) as error:
            self._say({"failed": f"{type(error).__name__}: {error}"})
            raise SystemExit(1) from None
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        self._say({"started": self._child.pid})

    def _in_the_child(self) -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTOU, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)

    def run(self) -> None:
        """Run until the script and all processes it left behind have ended."""
        listening = [0]
        while self._code is None:
            wait = None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())
            ready, _, _ = select.select([*listening, self._wake], [], [], wait)
            if self._wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
            if 0 in ready:
                letters = os.read(0, 64)
                if not letters:
                    listening, self._told = [], self._told or "orphaned"
                    self._signal(signal.SIGKILL)
                for letter in letters.decode("ascii", "replace"):
                    self._obey(letter)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._kill_at, self._told = None, "killed"
                self._signal(signal.SIGKILL)
            self._reap()
        left = self._clear()
        self._say({"ended": self._code, "left": left, "told": self._told})

    def _obey(self, letter: str) -> None:
        if letter == "T" and not self._told:
            self._told, self._kill_at = "terminated", time.monotonic() + self._grace
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)
        elif letter == "K":
            self._told, self._kill_at = "killed", None
            self._signal(signal.SIGKILL)
        elif letter in "SC":
            self._signal(signal.SIGSTOP if letter == "S" else signal.SIGCONT)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)
        for pid in descendants(os.getpid()):  # those in their own process group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getpgid(pid) != self._child.pid:
                    os.kill(pid, number)

    def _reap(self) -> bool:
        """Reap ended children; False when none is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == self._child.pid:
                self._code = os.waitstatus_to_exitcode(status)

    def _clear(self) -> int:
        """End everything that the script left behind; returns how many processes had to be killed."""
        began, killed = time.monotonic(), set[int]()
        while self._reap() and time.monotonic() - began < KILL_S:
            if time.monotonic() - began > LAST_WORDS_S or self._told:
                killed |= set(descendants(os.getpid()))
                self._signal(signal.SIGKILL)
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        return len(killed)

    def _say(self, document: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            os.write(self._status, (json.dumps(document) + "\n").encode())


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    Keeper(given["command"], given["status"], given["grace"], os.getppid()).run()
