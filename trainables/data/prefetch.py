"""Prefetch batches in threads, without changing them: a batch is a function of (seed, index) alone.

Threads, not processes: decoding, scaling and copying release the interpreter lock, batches need not be copied between
processes, and nothing is left behind when a trial is killed (`tests.bench.readers`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Prefetch(Generic[T]):
    """`get(seed, index)` returns `make(seed, index)`; with `readers` threads, the following batches are prepared
    meanwhile.

    `readers` = 0 makes each batch on request. At most `2 * readers` batches are held. An error in a thread is raised
    when its batch is requested, with a note naming the batch; errors of batches never requested are dropped.
    """

    def __init__(self, make: Callable[[int, int], T], readers: int) -> None:
        self._make, self._ahead = make, 2 * readers
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="geosweep-reader") if readers else None
        self._ready: dict[tuple[int, int], Future[T]] = {}

    def get(self, seed: int, index: int) -> T:
        """The batch, immediately if it is ready."""
        return self.finished(lambda made: made, seed, index)

    def finished(self, finish: Callable[[T], R], seed: int, index: int) -> R:
        """`finish(batch)`, called in this thread.

        If the batch is ready, the threads get new work only afterwards: starting sooner, they would hold the
        interpreter lock while a device waits for what `finish` sends to it.
        """
        if self._pool is None:
            return finish(self._make(seed, index))
        wanted = [(seed, i) for i in range(index, index + self._ahead)]
        for key in [k for k in self._ready if k not in wanted]:
            self._ready.pop(key).cancel()
        if wanted[0] not in self._ready or not self._ready[wanted[0]].done():
            self._submit(wanted)
        try:
            made = self._ready.pop(wanted[0]).result()
        except Exception as error:
            error.add_note(f"while batch {index} of seed {seed} was read ahead")
            raise
        found = finish(made)
        self._submit(wanted[1:])
        return found

    def _submit(self, keys: Iterable[tuple[int, int]]) -> None:
        assert self._pool is not None
        for key in keys:
            if key not in self._ready:
                self._ready[key] = self._pool.submit(self._make, *key)

    def close(self) -> None:
        """End the threads; returns when none is left."""
        self._ready.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
