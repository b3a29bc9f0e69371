"""Whether this process was told to end (SIGTERM), in which case exceptions are not the trial's own failure."""

from __future__ import annotations

import signal
from types import FrameType

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
