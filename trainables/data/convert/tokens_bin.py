"""Flat token files to Parquet blocks: `train.bin`, `val.bin`, perhaps `test.bin`, as nanoGPT's scripts write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainables.data import bins
from trainables.data.convert.output import Converted, Output, Progress
from trainables.data.description import Tokens
from trainables.data.errors import DataError
from trainables.data.shards import Place, check_tokens

BLOCK = 1024
CHUNK = 1 << 22


def tokens_bin(
    source: Path,
    output: Output,
    progress: Progress,
    *,
    vocabulary: int,
    dtype: str = "uint16",
    block: int = BLOCK,
    tokenizer: str = "unknown",
) -> Converted:
    """SRC: a folder with train.bin and perhaps val.bin and test.bin, or one file, which becomes `train`."""
    files = {"train": source} if source.is_file() else bins.find(source)
    if "train" not in files:
        raise DataError(source, "there is no train.bin", field="tokens")
    notes = []
    for split, path in files.items():
        left = add_blocks(output, split, bins.tokens(path, dtype), path, vocabulary, block, progress)
        if left:
            notes.append(f"{split}: the last {left} tokens do not fill a block of {block} and were left out")
    return Converted(tokens=describe_tokens(vocabulary, block, tokenizer), notes=tuple(notes))


def describe_tokens(vocabulary: int, block: int, tokenizer: str) -> Tokens:
    """The description of the column that `add_blocks` writes."""
    return Tokens(vocabulary=vocabulary, dtype=dtype_for(vocabulary), block=block, tokenizer=tokenizer)


def dtype_for(vocabulary: int) -> Any:
    """The narrowest type that the format supports."""
    return "uint16" if vocabulary <= 1 << 16 else "int32"


def add_blocks(
    output: Output, split: str, ids: NDArray[Any], path: Path, vocabulary: int, block: int, progress: Progress
) -> int:
    """Append ids as rows of `block` tokens; returns how many were left over. Raises DataError for ids above the
    vocabulary.
    """
    if block < 2:
        raise DataError(path, f"is {block}; a block needs at least 2 tokens", field="block")
    whole = len(ids) // block * block
    if not whole:
        raise DataError(path, f"has {len(ids)} tokens, less than one block of {block}", field="tokens")
    step = max(1, CHUNK // block) * block
    for first in range(0, whole, step):
        piece = np.asarray(ids[first : min(first + step, whole)])
        try:
            check_tokens(piece, Place(path, None, "tokens"), vocabulary)
        except DataError:
            at = first + int(np.flatnonzero((piece < 0) | (piece >= vocabulary))[0])
            message = f"token {at} is {ids[at]}; the vocabulary has {vocabulary} (0 to {vocabulary - 1})"
            raise DataError(path, message, field="tokens") from None
        values = pa.array(piece.astype(dtype_for(vocabulary)))
        rows = pa.FixedSizeListArray.from_arrays(values, block)
        output.add(split, {"tokens": rows}, encoding={"tokens.list.element": "DELTA_BINARY_PACKED"})
        progress(split, first + len(piece), whole)
    return len(ids) - whole
