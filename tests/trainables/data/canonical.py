"""Small data sets in the canonical layout, written with the library's own writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trainables.data.convert.output import Converted, binary, replacing
from trainables.data.description import DataSet, Images, Tokens, load


def raw_images(
    folder: Path, rows: dict[str, int], *, classes: int = 4, shape: tuple[int, int, int] = (3, 8, 8), seed: int = 0
) -> DataSet:
    """Noise whose mean brightness tells the class."""
    generator = np.random.default_rng(seed)
    with replacing(folder) as output:
        for split, count in rows.items():
            labels = generator.integers(0, classes, count)
            noise = generator.integers(0, 64, (count, *shape))
            images = (noise + 48 * labels[:, None, None, None]).astype(np.uint8)
            output.add(split, {"image": binary(images), "label": pa.array(labels, pa.int64())})
        channels = shape[0]
        images = Images(
            encoding="raw",
            shape=shape,
            classes=tuple(f"class {i}" for i in range(classes)),
            mean=(0.4,) * channels,
            std=(0.2,) * channels,
            statistics_rows=rows["train"],
        )
        output.finish(folder.name, Converted(images=images))
    return load(folder)


def tokens(folder: Path, ids: dict[str, Any], *, vocabulary: int, block: int, masks: Any = None) -> DataSet:
    """Rows of `block` tokens, with loss masks perhaps."""
    with replacing(folder) as output:
        for split, values in ids.items():
            flat = pa.array(np.asarray(values, np.uint16))
            columns = {"tokens": pa.FixedSizeListArray.from_arrays(flat, block)}
            if masks is not None:
                columns["mask"] = pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(masks[split], np.uint8)), block)
            output.add(split, columns)
        described = Tokens(
            vocabulary=vocabulary, dtype="uint16", block=block, tokenizer="test", masked=masks is not None
        )
        output.finish(folder.name, Converted(tokens=described))
    return load(folder)
