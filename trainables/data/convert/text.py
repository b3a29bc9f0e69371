"""Text files to tokens: bytes (vocabulary 256), or bytes and the most frequent words of the training text.

A word is a run of letters, digits and underscores with the preceding space, or a run of whitespace; one without its own
token is spelled in bytes, so nothing is lost and bits per byte are comparable across vocabularies. `vocabulary.json`
next to the shards lists words from id 256 on (bytes as Latin-1). For a subword vocabulary, run its own tokenizer first
and convert its ids with `tokens-bin`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.convert.output import Converted, Output, Progress
from trainables.data.convert.tokens_bin import BLOCK, add_blocks, describe_tokens, dtype_for
from trainables.data.errors import DataError

SUFFIXES = (".txt", ".tokens", ".raw", ".md", ".text")
WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
VAL_SHARE = 0.1
WORD = re.compile(rb" ?[A-Za-z0-9_\x80-\xff]+|\n *|  +|.", re.DOTALL)
BYTES = 256


def text(
    source: Path,
    output: Output,
    progress: Progress,
    *,
    tokenizer: str = "bytes",
    vocabulary: int = 10_000,
    block: int = BLOCK,
) -> Converted:
    """SRC: one file (its last tenth becomes val), or a folder, split by names such as train.txt, otherwise by hash."""
    if tokenizer not in ("bytes", "words"):
        raise DataError(source, f"is {tokenizer!r}; available: bytes, words", field="tokenizer")
    texts = _texts(source)
    if "train" not in texts:
        raise DataError(source, "no text is left to train on; name a file train.txt", field="tokens")
    size = 256
    words = vocabulary_of(texts["train"], vocabulary) if tokenizer == "words" else {}
    size = BYTES + len(words)
    if words:
        listing = json.dumps([word.decode("latin-1") for word in words], indent=0)
        (output.folder / "vocabulary.json").write_text(listing + "\n", encoding="utf-8")
    notes = []
    for split, content in texts.items():
        left = add_blocks(output, split, encode(content, words), source, size, block, progress)
        if left:
            notes.append(f"{split}: the last {left} tokens do not fill a block of {block} and were left out")
    return Converted(tokens=describe_tokens(size, block, tokenizer), notes=tuple(notes))


def vocabulary_of(content: bytes, size: int) -> dict[bytes, int]:
    """Word -> token for the `size` - 256 most frequent words of more than one byte; ties by spelling."""
    counts = Counter(word for word in WORD.findall(content) if len(word) > 1)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[: max(0, size - BYTES)]
    return {word: BYTES + i for i, word in enumerate(ranked)}


def encode(content: bytes, words: Mapping[bytes, int]) -> NDArray[Any]:
    """Token ids [n]."""
    if not words:
        return np.frombuffer(content, np.uint8)
    tokens: list[int] = []
    for word in WORD.findall(content):
        token = words.get(word)
        if token is None:
            tokens.extend(word)
        else:
            tokens.append(token)
    return np.asarray(tokens, dtype_for(BYTES + len(words)))


def _texts(source: Path) -> dict[str, bytes]:
    if source.is_file():
        content = source.read_bytes()
        at = content.rfind(b"\n", 0, round(len(content) * (1 - VAL_SHARE))) + 1
        at = at or round(len(content) * (1 - VAL_SHARE))
        return {"train": content[:at], "val": content[at:]}
    files = sorted(p for p in source.rglob("*") if p.is_file() and p.suffix in SUFFIXES)
    if not files:
        raise DataError(source, f"has no text; supported suffixes: {', '.join(SUFFIXES)}")
    named = {path: _named(path.relative_to(source)) for path in files}
    if not any(named.values()):
        named = {path: _hashed(path.relative_to(source)) for path in files}
    texts: dict[str, bytes] = {}
    for path in files:
        split = named[path]
        if split is None:
            raise DataError(path, "has no split in its name, while other files do (train, val, test)")
        texts[split] = texts.get(split, b"") + path.read_bytes()
    return texts


def _named(path: Path) -> str | None:
    found = [WORDS[w] for w in re.split(r"[^a-z]+", str(path).lower()) if w in WORDS]
    return found[0] if found else None


def _hashed(path: Path) -> str:
    """By a hash of its relative path, so that no file is on both sides and the split is stable when files are added."""
    value = int.from_bytes(hashlib.sha256(path.as_posix().encode()).digest()[:8], "big") / 2**64
    return "val" if value < VAL_SHARE else "train"
