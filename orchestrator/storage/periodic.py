"""Something done every few seconds, in the background, while a context lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_thread = threading.local()


def in_background() -> None:
    """Note that the calling thread is the driver's own: what it prints is no trial's."""
    _thread.background = True


def is_background() -> bool:
    """Whether this thread is one of the driver's own."""
    return bool(getattr(_thread, "background", False))


@contextmanager
def periodic(seconds: float, act: Callable[[], object], *, name: str) -> Iterator[None]:
    """Call `act` every `seconds` on a thread called `name`, first after `seconds`; on leaving, wait for a call under
    way and make no other.
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
