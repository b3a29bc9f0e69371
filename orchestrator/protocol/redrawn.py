"""A batch is a function of (seed, index): made again, after other random numbers were drawn, it is the same.

The digests that pair arms are those of `Task.batch_identity`, which names a batch but is not made from its contents. A
batch drawn from a global generator, or from an iterator, depends on what was drawn before, which differs between arms
and after a resume, under the same identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.randomness import seed_all
from trainables.task_class import Task


def redrawn(task: Task, seed: int) -> str:
    """Why the first batch is not a function of the seed; empty if it is. Leaves the generators in another state."""
    first = task.batch(seed, 0)
    seed_all(seed + 1)
    if same(first, task.batch(seed, 0)):
        return ""
    return (
        f"batch(seed={seed}, index=0) differs when it is made again, so it would differ between arms and after a "
        "resume; draw it from a generator that is seeded with both, such as "
        "torch.Generator().manual_seed(seed * 100_003 + index)"
    )


def same(one: Any, other: Any) -> bool:
    """Whether two batches have the same contents, as far as can be seen: tensors, arrays, numbers, text, and mappings
    and sequences of these.
    """
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return one.layout != torch.strided or bool(((one == other) | ((one != one) & (other != other))).all())
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and one.dtype != object:
        floats = np.issubdtype(one.dtype, np.inexact)
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=bool(floats))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool | int | float | str | bytes):
        return bool(one == other or (one != one and other != other))
    return type(one) is type(other)
