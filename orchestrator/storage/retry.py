"""Calling a service again while it is away: one retry loop, with exponential back-off, for stores and databases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


def backoff(first_s: float, longest_s: float) -> Iterator[float]:
    """Pauses in seconds, without end: `first_s`, twice that, four times that, ..., never above `longest_s`."""
    pause = first_s
    while True:
        yield min(pause, longest_s)
        pause = min(2 * pause, longest_s)


def retry(
    call: Callable[[], T],
    away: Callable[[Exception], bool],
    *,
    patience_s: float,
    first_s: float,
    longest_s: float,
) -> T:
    """`call()`, again after a pause while what it raises is `away`; the last attempt is `patience_s` after the first.

    Raises what the last attempt raised.
    """
    deadline = time.monotonic() + patience_s
    pauses = backoff(first_s, longest_s)
    while True:
        try:
            return call()
        except Exception as error:
            left = deadline - time.monotonic()
            if not away(error) or left <= 0:
                raise
        time.sleep(min(next(pauses), left))
