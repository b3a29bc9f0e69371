"""Tokens of a data set as one long array per split: cached Parquet blocks, or flat token files in place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data import bins, cache, description
from trainables.data.errors import DataError
from trainables.data.shards import Place, check_tokens

Ids = NDArray[Any]


@dataclass(frozen=True)
class Stream:
    """The tokens of a split, memory-mapped and concatenated."""

    ids: Ids
    mask: Ids | None
    """1 where a token is to be predicted; None if all are."""
    file: Path
    vocabulary: int
    verified: bool
    """Whether every token is known to be below the vocabulary size."""

    def windows(self, starts: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(tokens [n, length], the next tokens [n, length]); -1 where the next token is not to be predicted."""
        at = starts[:, None] + np.arange(length + 1)
        found = self.ids[at].astype(np.int64)
        if not self.verified:
            check_tokens(found.ravel(), Place(self.file, None, "tokens"), self.vocabulary, length + 1)
        targets = found[:, 1:]
        if self.mask is not None:
            targets = np.where(self.mask[at[:, 1:]] != 0, targets, -1)
        return found[:, :-1], targets


class TokenData:
    """A folder with `dataset.json`, or with train.bin, val.bin and test.bin.

    Flat files carry no metadata: `vocabulary` and `dtype` apply only to them, and every batch is checked against them.
    """

    def __init__(self, folder: Path, *, vocabulary: int, dtype: str) -> None:
        self._set = None
        self.block = 0
        """Tokens per row if rows are separate sequences; otherwise 0."""
        self._files = bins.find(folder)
        if (folder / description.FILE).is_file() or "train" not in self._files:
            self._set = description.load(folder)
            if self._set.tokens is None:
                raise DataError(folder, f"is a data set of {self._set.kind}; this task needs tokens")
            if vocabulary and vocabulary != self._set.tokens.vocabulary:
                raise DataError(
                    folder, f"is {self._set.tokens.vocabulary} by dataset.json, not {vocabulary}", field="vocabulary"
                )
            self.vocabulary, self.fingerprint = self._set.tokens.vocabulary, self._set.fingerprint
            self.splits = tuple(self._set.splits)
            self.block = self._set.tokens.block if self._set.tokens.masked else 0
            return
        if vocabulary < 2:
            raise DataError(
                folder, "flat token files do not say how many token ids there are; give it", field="vocabulary"
            )
        for path in self._files.values():
            bins.tokens(path, dtype)
        self.vocabulary, self._dtype = vocabulary, dtype
        self.fingerprint = bins.fingerprint(self._files, dtype, vocabulary)
        self.splits = tuple(self._files)

    def stream(self, split: str) -> Stream:
        """The tokens of a split."""
        if self._set is None:
            path = self._files[split]
            return Stream(bins.tokens(path, self._dtype), None, path, self.vocabulary, False)
        columns = cache.columns(self._set, split)
        mask = columns.arrays.get("mask")
        return Stream(columns["tokens"], mask, self._set.folder, self.vocabulary, True)

    def length(self, split: str) -> int:
        """Tokens of a split."""
        if self._set is not None and self._set.tokens and self._set.tokens.block:
            return self._set.splits[split].rows * self._set.tokens.block
        return len(self.stream(split).ids)
