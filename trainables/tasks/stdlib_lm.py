"""Language modeling on the source of the Python standard library: real text available on every machine.

The corpus is every `.py` file under the library's folder except tests and installed packages, ordered by path, with
bytes above 127 set to 127. A file belongs to train, val or test (88 / 6 / 6%) by a hash of its path, so no file is in
two splits. It changes with Python's patch version: its SHA-256 is part of every batch's identity and is recorded with
every trial, and results with different corpora are never compared.

`tokens: byte` uses the 128 byte values as vocabulary. `tokens: word` adds the most frequent words of the training files
(an identifier or number with the preceding space, an indentation), up to `vocabulary` tokens; other words are spelled
in bytes. Both are lossless, so bits per byte are comparable. zlib needs 1.81 bits per byte.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import re
import sysconfig
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from trainables.device import chosen, together
from trainables.models.gpt import GPT
from trainables.objectives import token_count, token_loss
from trainables.randomness import seed_torch
from trainables.recipe import Recipe
from trainables.registry import task
from trainables.task_class import Batch, Metric, Model, Task

SKIPPED = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
SMALLEST = 1_000_000
BYTES = 128
SPLITS = {"train": range(0, 88), "val": range(88, 94), "test": range(94, 100)}
WORD = re.compile(r" ?[A-Za-z_]\w*| ?\d+|\n *|  +|.", re.DOTALL)
EVALUATION_WINDOWS, EVALUATION_BATCH = 512, 64


@dataclass(frozen=True)
class Corpus:
    """Text of each split, one character per byte, and the SHA-256 of all of it with its paths."""

    splits: Mapping[str, str]
    digest: str


def read_corpus(root: Path) -> Corpus:
    """The Python source under `root`. Unreadable files are skipped."""
    digest, parts = hashlib.sha256(), {name: bytearray() for name in SPLITS}
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        relative = path.relative_to(root)
        if SKIPPED & set(relative.parts):
            continue
        try:
            content = path.read_bytes()
        except OSError:
            continue
        name = relative.as_posix().encode()
        digest.update(b"%d %b %d\n" % (len(name), name, len(content)) + content)
        share = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") % 100
        parts[next(k for k, shares in SPLITS.items() if share in shares)] += content
    clip = bytes(min(value, BYTES - 1) for value in range(256))
    return Corpus({k: bytes(v).translate(clip).decode("ascii") for k, v in parts.items()}, digest.hexdigest())


@lru_cache(maxsize=1)
def corpus() -> Corpus:
    """The standard library's source; if a distribution strips or zips it, torch's.

    Raises RuntimeError below 1 MB.
    """
    found = importlib.util.find_spec("torch")
    roots = [Path(sysconfig.get_paths()["stdlib"]), *map(Path, (found and found.submodule_search_locations) or ())]
    for root in roots:
        text = read_corpus(root)
        if sum(map(len, text.splits.values())) >= SMALLEST and all(text.splits.values()):
            return text
    places = " and ".join(map(str, roots))
    raise RuntimeError(
        f"stdlib_lm found under 1 MB of Python source in {places}; install Python with its library's source, "
        "or train the task `tokens` on your own text"
    )


def vocabulary_of(text: str, size: int) -> dict[str, int]:
    """Word -> token for the `size` - 128 most frequent words of more than one character; ties by spelling."""
    counts = Counter(word for word in WORD.findall(text) if len(word) > 1)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[: max(0, size - BYTES)]
    return {word: BYTES + i for i, word in enumerate(ranked)}


def encode(text: str, words: Mapping[str, int]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Token numbers [n]; words without their own token are spelled in bytes."""
    if not words:
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.uint16)
    tokens: list[int] = []
    for word in WORD.findall(text):
        token = words.get(word)
        if token is None:
            tokens.extend(word.encode("ascii"))
        else:
            tokens.append(token)
    return np.array(tokens, dtype=np.uint16)


@lru_cache(maxsize=2)
def encoded(tokens: str, vocabulary: int) -> dict[str, Tensor]:
    """Token numbers [n] (int16) of each split."""
    text = corpus().splits
    words = vocabulary_of(text["train"], vocabulary) if tokens == "word" else {}
    return {name: torch.from_numpy(encode(text[name], words).view(np.int16)) for name in SPLITS}


@task("stdlib_lm")
class StdlibLM(Task):
    """A GPT of `width`, `depth` and `heads` on windows of `block` tokens, `batch_size` windows per batch.

    `tokens`: byte or word; `vocabulary` in (128, 32767] applies only to words. `attention`: plain or fused.
    """

    METRICS: ClassVar = {
        "loss/val": Metric(goal="minimize", worst=100.0),
        "loss/test": Metric(goal="minimize", worst=100.0),
        "bits_per_byte/val": Metric(goal="minimize", worst=100.0),
        "bits_per_byte/test": Metric(goal="minimize", worst=100.0),
    }
    COUNTS: ClassVar = "tokens"
    FREE = frozenset({"batch_size", "width", "depth", "heads", "dropout", "attention"})
    RECIPE: ClassVar = Recipe(schedule="cosine", warmup=0.03, final_lr=0.1, clip_norm=1.0)
    divergence_loss = 100.0

    def __init__(
        self,
        *,
        tokens: str = "byte",
        vocabulary: int = 4096,
        block: int = 64,
        batch_size: int = 8,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        attention: str = "plain",
    ) -> None:
        if tokens not in ("byte", "word"):
            raise ValueError(f"tokens is {tokens!r}; available: byte, word")
        if not BYTES < vocabulary <= 32767:
            raise ValueError(f"vocabulary is {vocabulary}; it must lie in ({BYTES}, 32767]")
        sizes = {"block": block, "batch_size": batch_size, "width": width, "depth": depth, "heads": heads}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be 1 or more")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must lie in [0, 1)")
        self._tokens, self._vocabulary, self._block, self._size = tokens, vocabulary, block, batch_size
        self._shape = {"width": width, "depth": depth, "heads": heads, "dropout": dropout, "attention": attention}
        with torch.device("meta"):
            self._network()

    def _network(self) -> GPT:
        size = BYTES if self._tokens == "byte" else self._vocabulary
        return GPT(size, block=self._block, **self._shape)  # type: ignore[arg-type]

    def model(self, seed: int) -> Model:
        """A GPT with GPT-2's initialization."""
        seed_torch(seed)
        return self._network().to(chosen("auto"))

    def facts(self) -> Mapping[str, str]:
        """The corpus by its SHA-256."""
        return {"corpus_sha256": corpus().digest}

    def tokens_per_batch(self) -> int:
        """Windows x tokens per window."""
        return self._size * self._block

    def batch(self, seed: int, index: int) -> Batch:
        """(tokens [batch, block], next tokens [batch, block])."""
        return self._windows("train", self._starts(seed, index))

    def batch_identity(self, seed: int, index: int) -> bytes:
        """The corpus and the start positions of the windows."""
        return corpus().digest.encode() + self._starts(seed, index).numpy().tobytes()

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """Mean cross-entropy in nats over unmasked (nonnegative) targets."""
        return token_loss(outputs, targets)

    def terms(self, targets: Any) -> float:
        """Number of unmasked targets."""
        return float(token_count(targets))

    def evaluate(self, model: Model) -> dict[str, float]:
        """Nats per token, and bits per byte, over 512 fixed windows of the validation and of the test files."""
        assert isinstance(model, nn.Module)
        found: dict[str, float] = {}
        for name in ("val", "test"):
            stream, text = encoded(self._tokens, self._vocabulary)[name], corpus().splits[name]
            starts = torch.linspace(0, len(stream) - self._block - 1, EVALUATION_WINDOWS, dtype=torch.float64).long()
            with torch.no_grad():
                losses = [
                    float(self.loss(model(inputs), targets))
                    for inputs, targets in (self._windows(name, s) for s in torch.split(starts, EVALUATION_BATCH))
                ]
            found[f"loss/{name}"] = sum(losses) / len(losses)
            found[f"bits_per_byte/{name}"] = found[f"loss/{name}"] / math.log(2) * len(stream) / len(text)
        return found

    def _starts(self, seed: int, index: int) -> Tensor:
        """Start positions of the windows of batch `index` in the training stream [batch]."""
        stream = encoded(self._tokens, self._vocabulary)["train"]
        key = hashlib.blake2b(f"stdlib_lm/{seed}/{index}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key, "big"))
        return torch.randint(len(stream) - self._block, (self._size,), generator=generator)

    def _windows(self, split: str, starts: Tensor) -> Batch:
        stream = encoded(self._tokens, self._vocabulary)[split]
        (pieces,) = together(stream[starts[:, None] + torch.arange(self._block + 1)].long())
        return pieces[:, :-1], pieces[:, 1:]
