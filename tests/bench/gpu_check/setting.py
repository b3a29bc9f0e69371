"""What every section is given: the device, sizes, a folder with made data, and how long it may take."""

from __future__ import annotations

import contextlib
import io
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import optim_core
import trainables
from trainables import Task
from trainables.data.convert.output import Converted, binary, replacing
from trainables.data.convert.tokens_bin import add_blocks, describe_tokens
from trainables.data.description import Images

Row = dict[str, Any]
CLASSES = 100


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything."""

    width: int
    depth: int
    iterations: int
    side: int
    images: int
    batch: int
    model: str
    vocabulary: int
    tokens: int
    context: int
    sequences: int
    seconds: float
    readers: tuple[int, ...]
    at_once: tuple[int, ...]
    small_batch: int
    small_steps: int
    trials: int
    packed_s: float
    processes: tuple[int, ...]
    packs: tuple[int, ...]
    sweep_packs: tuple[int, ...]
    pack_trials: tuple[int, int]
    """Of a sweep without packs, and at least with them; three a worker where workers share the device."""
    pack_steps: int


FULL = Sizes(
    width=512, depth=4, iterations=10, side=32, images=10_000, batch=128, model="gpt2", vocabulary=50257,
    tokens=4_000_000, context=1024, sequences=8, seconds=4.0, readers=(0, 1, 2, 4), at_once=(1, 4, 16), small_batch=32,
    small_steps=100, trials=16, packed_s=0.6, processes=(1, 4, 16), packs=(16, 64, 256),
    sweep_packs=(64, 16), pack_trials=(16, 128), pack_steps=400,
)  # fmt: skip
TINY = Sizes(
    width=16, depth=1, iterations=1, side=8, images=64, batch=4, model="gpt_nano", vocabulary=64, tokens=4096,
    context=8, sequences=2, seconds=0.2, readers=(0, 2), at_once=(2,), small_batch=4, small_steps=4, trials=2,
    packed_s=0.1, processes=(1, 2), packs=(2,), sweep_packs=(2, 4), pack_trials=(2, 4), pack_steps=8,
)  # fmt: skip


@dataclass
class Setting:
    """Where and how big; `until` is when the section ends, by the monotonic clock."""

    device: str
    sizes: Sizes
    place: Path
    only: tuple[str, ...] = ()
    until: float = field(default=float("inf"))

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU."""
        return self.device == "cuda"

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    def optimizers(self) -> list[str]:
        """Those that were asked for."""
        return [name for name in optim_core.names() if not self.only or name in self.only]

    def each(self, names: Iterable[str], make: Callable[[str], Iterable[Row] | Row]) -> Iterator[Row]:
        """A row, or some, for each name: what fails is a row, and so is what there is no time left for."""
        for name in names:
            if self.left <= 0:
                yield {"what": name, "left out": "no time"}
                continue
            try:
                found = make(name)
                yield from ({"what": name, **row} for row in ([found] if isinstance(found, dict) else found))
            except ImportError:
                yield {"what": name, "note": "not installed"}
            except torch.OutOfMemoryError:
                yield {"what": name, "note": "out of memory"}
            except Exception as error:
                traceback.print_exc(file=sys.stderr)
                yield {"what": name, "failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
            if self.cuda:
                torch.cuda.empty_cache()

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.cuda:
            torch.cuda.synchronize()

    def data(self, kind: str) -> str:
        """The folder of made images or tokens, written on first use."""
        folder = self.place / kind
        if not folder.exists():
            with contextlib.redirect_stdout(io.StringIO()):
                (_write_images if kind == "images" else _write_tokens)(folder, self.sizes)
        return str(folder)

    def task(self, kind: str) -> Task:
        """`images` or `tokens` on the device."""
        s = self.sizes
        if kind == "images":
            return trainables.build(
                "images", data=self.data(kind), model="resnet18", batch_size=s.batch, device=self.device
            )
        return trainables.build(
            "tokens",
            data=self.data(kind),
            model=s.model,
            context=s.context,
            batch_size=s.sequences,
            device=self.device,
        )


def _write_images(folder: Path, sizes: Sizes) -> None:
    generator = np.random.default_rng(0)
    with replacing(folder) as output:
        for split, rows in (("train", sizes.images), ("val", 16)):
            pixels = generator.integers(0, 256, (rows, 3, sizes.side, sizes.side), dtype=np.uint8)
            labels = pa.array(generator.integers(0, CLASSES, rows), pa.int64())
            output.add(split, {"image": binary(pixels), "label": labels})
        described = Images(
            encoding="raw",
            shape=(3, sizes.side, sizes.side),
            classes=tuple(map(str, range(CLASSES))),
            mean=(0.5,) * 3,
            std=(0.29,) * 3,
            statistics_rows=sizes.images,
        )
        output.finish("images", Converted(images=described))


def _write_tokens(folder: Path, sizes: Sizes) -> None:
    generator = np.random.default_rng(0)
    ids, block = generator.integers(0, sizes.vocabulary, sizes.tokens), sizes.context + 1
    with replacing(folder) as output:
        for split, part in (("train", ids), ("val", ids[: 4 * block])):
            add_blocks(output, split, part, folder.parent / "synthetic", sizes.vocabulary, block, lambda *_: None)
        output.finish("tokens", Converted(tokens=describe_tokens(sizes.vocabulary, block, "none")))
