"""Retry calls to a service that is unavailable, with exponential back-off, for stores and databases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


def backoff(first_s: float, longest_s: float) -> Iterator[float]:
    """Endless pauses in seconds: `first_s`, twice that, four times that, ..., at most `longest_s`."""
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
    """`call()`, repeated after a pause while its exception is `away`; the last attempt is `patience_s` after the first.

    Raises the exception of the last attempt.
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
