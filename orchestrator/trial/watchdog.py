"""Ends a hung step and records where it hung.

faulthandler's own thread watches from C, so it also catches a step that never returns from C code or never releases the
interpreter lock. After the limit it writes every stack to a file and ends the process: the executor hands the trial out
again, and the new session finds the file and reports the trial as FAILED with these stacks. A worker process is lost
with the trial; the sweep continues.

In a process that is not the trial's alone (the debug executor) a step that can still be interrupted is: `HungStep` is
raised where it hangs. Only a step that cannot be interrupted ends the process, after GRACE_S more. A step in pdb is
left alone.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import IO

GRACE_S = 30.0
SIGNAL = signal.SIGUSR1


class HungStep(Exception):  # noqa: N818
    """A step exceeded its time limit."""


class Watchdog:
    """Watches the thread that creates it; call `beat` before every step, `stop` at the end. One at a time per process.

    `limit_s` None disables the timeout. `own_process`: the process holds nothing else and may be ended.
    """

    def __init__(self, file: Path, limit_s: float | None, *, own_process: bool) -> None:
        self._path, self._limit = file, limit_s
        self._file: IO[str] | None = None
        self._beat_at = self._armed_at = float("-inf")
        main = threading.current_thread() is threading.main_thread()
        self._thread = threading.get_ident()
        self._interrupts = limit_s is not None and not own_process and main
        self._over, self._biting = threading.Event(), threading.Lock()
        self._bitten = self._stopping = False
        self._before: object = None

    def beat(self) -> None:
        """A step begins. Costs a clock reading; the C watchdog is reset at most once per second."""
        if self._limit is None:
            return
        now = self._beat_at = time.monotonic()
        slack = min(1.0, self._limit / 4)
        if now - self._armed_at < slack:
            return
        if self._file is None:
            self._stopping = False
            self._file, self._over = self._path.open("w", encoding="utf-8"), threading.Event()
            if self._interrupts:
                self._before = signal.signal(SIGNAL, self._interrupt)
                threading.Thread(target=self._watch, args=(slack, self._over), daemon=True).start()
        self._armed_at = now
        patience = self._limit + slack + (GRACE_S if self._interrupts else 0.0)
        faulthandler.dump_traceback_later(patience, exit=True, file=self._file)

    def stop(self) -> None:
        """No step is running any more."""
        if self._file is None:
            return
        self._stopping = True
        with self._biting:
            self._over.set()
        faulthandler.cancel_dump_traceback_later()
        if self._interrupts:
            if self._bitten:
                time.sleep(0.01)  # a pending signal arrives before its handler is removed
            signal.signal(SIGNAL, self._before)  # type: ignore[arg-type]
        self._file.close()
        self._file, self._armed_at = None, float("-inf")
        self._path.unlink(missing_ok=True)

    def _watch(self, every: float, over: threading.Event) -> None:
        assert self._limit is not None
        while not over.wait(every):
            if time.monotonic() - self._beat_at <= self._limit:
                continue
            if _in_debugger(sys._current_frames().get(self._thread)):
                self.beat()
            else:
                with self._biting:
                    if not over.is_set():
                        self._beat_at, self._bitten = float("inf"), True
                        signal.pthread_kill(self._thread, SIGNAL)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self._stopping:  # otherwise the step ended just in time
            raise HungStep(f"a step took longer than {self._limit:g} s (training.step_timeout)")


def left_behind(folder: Path) -> str:
    """The stacks that watchdogs of an earlier process wrote before ending it; empty if none."""
    found = {path: path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("hang*.txt"))}
    told = [f"{path.name}: {text}" for path, text in found.items() if text.strip()]
    says = "a step took longer than training.step_timeout and its process was killed"
    return "\n".join([says, *told]) if told else ""


def _in_debugger(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") in ("pdb", "bdb"):
            return True
        frame = frame.f_back
    return False
