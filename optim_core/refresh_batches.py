"""The batches on which a learned geometry is refreshed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Batches = Callable[[int], tuple[Any, Any]] | Iterable[tuple[Any, Any]]


class Source:
    """Pairs (inputs, targets) of a callable by index, or of an iterable in turn, restarted when it ends."""

    def __init__(self, given: Batches) -> None:
        if not callable(given) and not isinstance(given, Iterable):
            raise TypeError("refresh_batches must be a callable index -> (inputs, targets), or an iterable of them")
        self.given = given
        self._iterator: Iterator[tuple[Any, Any]] | None = None
        self._peeked: tuple[Any, Any] | None = None

    def peek(self, index: int) -> tuple[Any, Any]:
        """The pair that `draw` returns next."""
        self._peeked = self._fetch(index)
        return self._peeked

    def draw(self, index: int) -> tuple[Any, Any]:
        """The next pair. Raises RuntimeError if there is none, TypeError if it is no pair."""
        batch, self._peeked = self._fetch(index) if self._peeked is None else self._peeked, None
        return batch

    def _fetch(self, index: int) -> tuple[Any, Any]:
        if callable(self.given):
            batch = self.given(index)
        else:
            found = next(self._iterator, None) if self._iterator is not None else None
            if found is None:
                self._iterator = iter(self.given)
                found = next(self._iterator, None)
            if found is None:
                raise RuntimeError("refresh_batches is exhausted; pass a callable index -> (inputs, targets) or an "
                                   "iterable that can be restarted, for example a DataLoader")  # fmt: skip
            batch = found
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TypeError(f"refresh_batches gave {type(batch).__name__}; it must give pairs (inputs, targets)")
        return batch[0], batch[1]
