"""Call a function every few seconds in the background while a context lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_thread = threading.local()


def in_background() -> None:
    """Mark the calling thread as the driver's own: its output does not belong to a trial."""
    _thread.background = True


def is_background() -> bool:
    """Whether this thread is one of the driver's own."""
    return bool(getattr(_thread, "background", False))


@contextmanager
def periodic(seconds: float, act: Callable[[], object], *, name: str) -> Iterator[None]:
    """Call `act` every `seconds` on a thread called `name`, first after `seconds`; on exit, wait for a call in
    progress.
    """
    done = threading.Event()

    def tick() -> None:
        in_background()
        while not done.wait(seconds):
            act()

    thread = threading.Thread(target=tick, daemon=True, name=name)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
