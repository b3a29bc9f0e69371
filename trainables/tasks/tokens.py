"""Language modeling on a user's tokens: Parquet blocks (`geosweep data convert`), or train.bin and val.bin.

An epoch splits the training text into windows of `context` tokens, starting at its own offset, and shows each once in
shuffled order; offset and order are functions of (seed, epoch). If a data set has loss masks (sequence to sequence,
instructions), its rows are the windows, and tokens with mask 0 are read but not predicted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables import device as devices
from trainables.data import DataError, chance, locate
from trainables.data.prefetch import Prefetch
from trainables.data.streams import TokenData
from trainables.models import catalogue
from trainables.objectives import token_count, token_loss
from trainables.randomness import seed_torch
from trainables.recipe import Recipe
from trainables.registry import task
from trainables.task_class import Batch, Metric, Model, Task

REFRESH = 1_000_003
HIGHEST_LOSS = 20.0
"""Nats above which perplexity is capped: e^20 is 5e8."""
WORST = math.exp(HIGHEST_LOSS)
Pair = tuple[Tensor, Tensor]


@task("tokens")
class Tokens(Task):
    """`data`: folder of the data set; `model`: gpt2, gpt2_medium, gpt2_large, gpt2_xl or gpt_nano.

    `context`: tokens per window (if rows have masks: their length - 1); `batch_size` in windows. `vocabulary` and
    `dtype` are for flat token files only. `evaluation_windows`: evenly spaced windows of validation and test text.
    `held_out`: share at the end of the training text that replaces a missing split `val`. `attention`: plain, which
    every optimizer can differentiate, or fused. `workers`: threads that prefetch batches, instead of
    `resources.readers`.
    """

    METRICS: ClassVar = {
        "loss/val": Metric(goal="minimize", worst=100.0),
        "loss/test": Metric(goal="minimize", worst=100.0),
        "perplexity/val": Metric(goal="minimize", worst=WORST),
        "perplexity/test": Metric(goal="minimize", worst=WORST),
    }
    COUNTS: ClassVar = "tokens"
    FREE = frozenset({"model", "batch_size", "dropout", "bias", "label_smoothing", "attention", "workers", "device"})
    RECIPE: ClassVar = Recipe(warmup=0.02, final_lr=0.1, clip_norm=1.0)
    divergence_loss = 100.0

    def __init__(
        self,
        *,
        data: str,
        model: str = "gpt2",
        context: int = 1024,
        batch_size: int = 8,
        vocabulary: int = 0,
        dtype: str = "uint16",
        dropout: float = 0.0,
        bias: bool = True,
        label_smoothing: float = 0.0,
        attention: str = "plain",
        evaluation_windows: int = 256,
        held_out: float = 0.01,
        workers: int = 0,
        device: str = "auto",
    ) -> None:
        if model not in catalogue.GPT_SIZES:
            raise ValueError(f"model is {model!r}; available: {', '.join(catalogue.GPT_SIZES)}")
        sizes = {"context": context, "batch_size": batch_size, "evaluation_windows": evaluation_windows}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be 1 or more")
        for name, share in {"dropout": dropout, "label_smoothing": label_smoothing, "held_out": held_out}.items():
            if not 0 <= share < 1:
                raise ValueError(f"{name} is {share}; it must lie in [0, 1)")
        if workers < 0:
            raise ValueError(f"workers is {workers}; it must be 0 or more")
        devices.check(device)
        try:
            self._data = TokenData(locate(data), vocabulary=vocabulary, dtype=dtype)
        except DataError as error:
            raise ValueError(f"data is {data!r}: {error}") from None
        if self._data.block and context != self._data.block - 1:
            raise ValueError(
                f"context is {context}; rows with masks have {self._data.block} tokens, so it must be one less"
            )
        self._model, self._context, self._size, self._device = model, context, batch_size, device
        self._smoothing, self._evaluation_windows = label_smoothing, evaluation_windows
        self._network = {"context": context, "dropout": dropout, "bias": bias, "attention": attention}
        with torch.device("meta"):
            self._gpt()
        self._lengths = self._cut(held_out)
        self._order = chance.Order(self._windows(), batch_size)
        self.METRICS = {  # type: ignore[misc]  # a data set may have no test text
            n: m for n, m in type(self).METRICS.items() if "test" in self._data.splits or "test" not in n
        }
        self._workers = workers
        self._train, self._refresh = Prefetch(self._pack, 0), Prefetch(self._pack, 0)
        if workers:
            self.read_ahead(workers)

    def model(self, seed: int) -> Model:
        """A GPT with GPT-2's initialization, initialized on the CPU."""
        seed_torch(seed)
        return self._gpt().to(devices.chosen(self._device))

    def read_ahead(self, readers: int) -> None:
        """With threads; the task's own `workers` takes precedence. The few refresh batches are read in the step."""
        self._train.close()
        self.readers = readers and (self._workers or readers)
        self._train = Prefetch(self._pack, self.readers)

    def facts(self) -> Mapping[str, str]:
        """The data set by its fingerprint."""
        return {"data_fingerprint": self._data.fingerprint}

    def tokens_per_batch(self) -> int:
        """Windows x tokens per window, including masked ones."""
        return self._size * self._context

    def batch(self, seed: int, index: int) -> Batch:
        """(tokens [batch, context], next tokens [batch, context], negative where not to be predicted)."""
        return self._train.finished(self._moved, seed, index)

    def refresh_batch(self, seed: int, index: int) -> Batch:
        """The same text in a separate order."""
        return self._refresh.finished(self._moved, seed + REFRESH, index)

    def batch_identity(self, seed: int, index: int) -> bytes:
        """The data set and the start positions of the windows."""
        return self._data.fingerprint.encode() + self._starts(seed, index).tobytes()

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """Mean cross-entropy in nats over the tokens to be predicted."""
        return token_loss(outputs, targets, self._smoothing)

    def terms(self, targets: Any) -> float:
        """Number of tokens to be predicted."""
        return float(token_count(targets))

    def evaluate(self, model: Model) -> dict[str, float]:
        """Nats per token, and perplexity, over evenly spaced windows."""
        assert isinstance(model, nn.Module)
        found: dict[str, float] = {}
        to = devices.chosen(self._device)
        for name in ("val", "test") if "test" in self._data.splits else ("val",):
            first, last = self._lengths[name]
            count = (last - first) // self._stride() if self._data.block else last - first - self._context
            places = np.unique(np.linspace(0, count - 1, min(count, self._evaluation_windows), dtype=np.int64))
            starts = first + places * (self._stride() if self._data.block else 1)
            stream = self._data.stream(name if name in self._data.splits else "train")
            total, tokens = 0.0, 0
            for at in range(0, len(starts), self._size):
                pair = stream.windows(starts[at : at + self._size], self._context)
                inputs, targets = (devices.moved(torch.from_numpy(x), to) for x in pair)
                with torch.no_grad():
                    loss = token_loss(model(inputs), targets)
                weight = int(token_count(targets))
                total, tokens = total + float(loss) * weight, tokens + weight
            found[f"loss/{name}"] = total / tokens
            found[f"perplexity/{name}"] = math.exp(min(total / tokens, HIGHEST_LOSS))
        return found

    def _moved(self, pair: Pair) -> Batch:
        to = devices.chosen(self._device)
        return devices.moved(pair[0], to), devices.moved(pair[1], to)

    def _gpt(self) -> nn.Module:
        return catalogue.gpt(self._model, self._data.vocabulary, **self._network)  # type: ignore[arg-type]

    def _stride(self) -> int:
        return self._data.block or self._context

    def _cut(self, held_out: float) -> dict[str, tuple[int, int]]:
        """(first, last + 1) token of each split."""
        lengths = {name: (0, self._data.length(name)) for name in self._data.splits}
        if "val" not in lengths:
            whole = lengths["train"][1]
            end = round(whole * (1 - held_out)) // self._stride() * self._stride()
            lengths["train"], lengths["val"] = (0, end), (end, whole)
        for name, (first, last) in lengths.items():
            if last - first < self._stride() + 1 and last - first != self._data.block:
                raise ValueError(f"context is {self._context}; split {name} has only {last - first} tokens")
        return lengths

    def _windows(self) -> int:
        """Windows per epoch of training text; all of them fit, whatever the epoch's offset."""
        length = self._lengths["train"][1]
        return length // self._stride() if self._data.block else max(1, (length - self._context) // self._context)

    def _starts(self, seed: int, index: int) -> NDArray[np.int64]:
        """Start positions of the windows of batch `index` [batch]."""
        windows, epochs = self._order.batch(seed, index)
        if self._data.block:
            return windows * self._data.block
        room = min(self._context, self._lengths["train"][1] - self._windows() * self._context)
        return windows * self._context + chance.below(room, seed, chance.WINDOW, epochs)

    def _pack(self, seed: int, index: int) -> Pair:
        to = devices.chosen(self._device)
        inputs, targets = self._data.stream("train").windows(self._starts(seed, index), self._context)
        return devices.pinned(torch.from_numpy(inputs), to), devices.pinned(torch.from_numpy(targets), to)
