"""The closure that optimizers in tests are stepped with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def closure_of(optimizer: Any, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Clears the gradients (`optimizer` may be a model), computes the loss, differentiates it and returns it."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    return closure
