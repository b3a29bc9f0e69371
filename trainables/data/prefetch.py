"""Batches prepared ahead by threads, which change nothing: a batch is a function of (seed, index) alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """`get(seed, index)` returns `make(seed, index)`; with `workers` threads the next ones are under way meanwhile.

    `workers` = 0 makes each batch when it is asked for. Decoding and copying release the interpreter lock, so threads
    help; `2 * workers` batches are held at most. An error in a thread is raised when its batch is asked for.
    """

    def __init__(self, make: Callable[[int, int], T], workers: int) -> None:
        self._make, self._ahead = make, 2 * workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="geosweep-data") if workers else None
        self._ready: dict[tuple[int, int], Future[T]] = {}

    def get(self, seed: int, index: int) -> T:
        """The batch, at once if it was prepared."""
        if self._pool is None:
            return self._make(seed, index)
        wanted = [(seed, i) for i in range(index, index + self._ahead)]
        for key in [k for k in self._ready if k not in wanted]:
            self._ready.pop(key).cancel()
        for key in wanted:
            if key not in self._ready:
                self._ready[key] = self._pool.submit(self._make, *key)
        return self._ready.pop(wanted[0]).result()

    def close(self) -> None:
        """Let the threads end."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
