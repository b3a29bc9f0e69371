"""Whether this process was told to end (SIGTERM): then what its trial raises is not the trial's own doing."""

from __future__ import annotations

import signal
from types import FrameType

_told = False


def told() -> bool:
    """Whether SIGTERM came since `heed`."""
    return _told


def heed() -> None:
    """Note a SIGTERM from now on, before it does what it did so far. In the main thread only.

    Where it ends the process at once, it still does: nothing could be mistaken for the trial's doing then.
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
