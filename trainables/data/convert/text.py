"""Text files to tokens: bytes (vocabulary 256), or words, the `vocabulary` - 1 most frequent of the training text.

Words are runs of letters, digits and underscores, or single other characters; blanks between are dropped, line ends are
kept. Id 0 is the unknown word; `vocabulary.txt` beside the shards has one word a line. For a subword vocabulary run its
own tokenizer first and convert its ids with `tokens-bin`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np

from trainables.data.convert.output import Converted, Output, Progress
from trainables.data.convert.tokens_bin import BLOCK, add_blocks, describe_tokens, dtype_for
from trainables.data.errors import DataError

SUFFIXES = (".txt", ".tokens", ".raw", ".md", ".text")
WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
VAL_SHARE = 0.1
WORD = re.compile(r"\w+|[^\w\s]|\n")
UNKNOWN = "<unknown>"


def text(
    source: Path,
    output: Output,
    progress: Progress,
    *,
    tokenizer: str = "bytes",
    vocabulary: int = 10_000,
    block: int = BLOCK,
) -> Converted:
    """SRC: one file (its last tenth becomes val), or a folder, split by names such as train.txt, else by hash."""
    if tokenizer not in ("bytes", "words"):
        raise DataError(source, f"is {tokenizer!r}; there is: bytes, words", field="tokenizer")
    texts = _texts(source)
    if "train" not in texts:
        raise DataError(source, "no text is left to train on; name a file train.txt", field="tokens")
    size = 256
    if tokenizer == "words":
        counts = Counter(WORD.findall(texts["train"].decode("utf-8", errors="replace")))
        words = [UNKNOWN, *(word for word, _ in sorted(counts.items(), key=lambda c: (-c[1], c[0]))[: vocabulary - 1])]
        size, numbers = len(words), {word: i for i, word in enumerate(words)}
        listing = "".join(f"{word}\n" if word != "\n" else "\\n\n" for word in words)
        (output.folder / "vocabulary.txt").write_text(listing, encoding="utf-8")
    notes = []
    for split, content in texts.items():
        if tokenizer == "bytes":
            ids = np.frombuffer(content, np.uint8)
        else:
            found = WORD.findall(content.decode("utf-8", errors="replace"))
            ids = np.fromiter((numbers.get(w, 0) for w in found), dtype_for(size), len(found))
        left = add_blocks(output, split, ids, source, size, block, progress)
        if left:
            notes.append(f"{split}: the last {left} tokens fill no block of {block} and were left out")
    return Converted(tokens=describe_tokens(size, block, tokenizer), notes=tuple(notes))


def _texts(source: Path) -> dict[str, bytes]:
    if source.is_file():
        content = source.read_bytes()
        at = content.rfind(b"\n", 0, round(len(content) * (1 - VAL_SHARE))) + 1
        at = at or round(len(content) * (1 - VAL_SHARE))
        return {"train": content[:at], "val": content[at:]}
    files = sorted(p for p in source.rglob("*") if p.is_file() and p.suffix in SUFFIXES)
    if not files:
        raise DataError(source, f"has no text; these count: {', '.join(SUFFIXES)}")
    named = {path: _named(path.relative_to(source)) for path in files}
    if not any(named.values()):
        named = {path: _hashed(path.relative_to(source)) for path in files}
    texts: dict[str, bytes] = {}
    for path in files:
        split = named[path]
        if split is None:
            raise DataError(path, "names no split, while other files do (train, val, test)")
        texts[split] = texts.get(split, b"") + path.read_bytes()
    return texts


def _named(path: Path) -> str | None:
    found = [WORDS[w] for w in re.split(r"[^a-z]+", str(path).lower()) if w in WORDS]
    return found[0] if found else None


def _hashed(path: Path) -> str:
    """By the hash of its relative path, so that no file is on both sides and the split stays when files are added."""
    value = int.from_bytes(hashlib.sha256(path.as_posix().encode()).digest()[:8], "big") / 2**64
    return "val" if value < VAL_SHARE else "train"
