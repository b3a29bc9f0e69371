"""What ends this process: a SIGTERM, after which exceptions are not the trial's own failure, or a trial's own code."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SHOWN_S = 0.3
"""Seconds in which another thread, which collects a trial's output, shows its last line."""
_told = False


def told() -> bool:
    """Whether SIGTERM was received since `heed`."""
    return _told


def heed() -> None:
    """Record a SIGTERM from now on, before its previous handler runs. In the main thread only.

    If it ends the process at once, it still does: then nothing could be mistaken for a failure of the trial.
    """
    global _told
    _told, before = False, signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        global _told
        _told = True
        assert callable(before)
        before(number, frame)

    if callable(before):
        signal.signal(signal.SIGTERM, note)


class OsExit(SystemExit):
    """`os._exit(code)`, called in code of the user's that shares this process."""

    def __str__(self) -> str:
        return f"os._exit({self.code!r})"


@contextmanager
def exits_raise() -> Iterator[None]:
    """Meanwhile, `os._exit` in the thread that entered raises OsExit, which says where it was called.

    It would end the sweep as if all were well. In another thread it ends the process as asked, but never with code 0;
    in a forked child it does what it always does.
    """
    real, process, thread = os._exit, os.getpid(), threading.get_ident()

    def end(status: int = 0) -> NoReturn:
        if os.getpid() != process:
            real(status)
        if threading.get_ident() == thread:
            raise OsExit(status)
        if not status:
            os.write(2, b"a thread of the task called os._exit(0); run the same command again to continue\n")
            time.sleep(SHOWN_S)
        real(status or 1)

    end.__code__ = end.__code__.replace(co_filename="<os._exit>")  # the line to show is that of the call
    os._exit = end
    try:
        yield
    finally:
        os._exit = real
