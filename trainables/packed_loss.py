"""Cross-entropy of several runs at once, in the few kernels that it takes for one.

`torch.vmap` has no rule of its own for it and takes it apart: about 25 small operations in each step, of the 65 of a
small network. Within `Together`, the usual form (classes by number, the mean) is computed from the rows of all runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

IGNORED = -100
"""Targets with this number do not count, as in torch."""
USUAL = {"ignore_index": IGNORED, "reduction": "mean", "label_smoothing": 0.0}


class Together(TorchFunctionMode):
    """Within this context, `cross_entropy` under `vmap` is that of all runs at once."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See `TorchFunctionMode`."""
        if func is F.cross_entropy and _is_plain(*args, **(kwargs or {})):
            return _CrossEntropy.apply(*args[:2])  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _is_plain(outputs: Any = None, targets: Any = None, *rest: Any, **given: Any) -> bool:
    usual = not rest and all(value is None or value == USUAL.get(key) for key, value in given.items())
    if not usual or not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return False
    batched = torch._C._functorch.is_batchedtensor
    return outputs.dim() == 2 and targets.dim() == 1 and targets.dtype == torch.int64 and batched(outputs)


class _CrossEntropy(torch.autograd.Function):
    """outputs [batch, classes], targets [batch] -> the mean."""

    @staticmethod
    def forward(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        """Nothing: only several runs are trained through it, by `vmap`, whose operations torch differentiates."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], outputs: Tensor, targets: Tensor) -> Any:  # type: ignore[override]
        outputs = outputs.movedim(in_dims[0], 0) if in_dims[0] is not None else outputs.expand(info.batch_size, -1, -1)
        counted = (targets != IGNORED).sum(0 if in_dims[1] is None else 1 - in_dims[1])
        targets = targets.expand(info.batch_size, -1) if in_dims[1] is None else targets.movedim(in_dims[1], 0)
        each = F.cross_entropy(outputs.flatten(0, 1), targets.reshape(-1), ignore_index=IGNORED, reduction="none")
        return each.view(info.batch_size, -1).sum(1) / counted, 0
