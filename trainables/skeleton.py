"""A model without weights of its own: its forward pass with weights passed in, for `torch.vmap` over many weights.

A linear layer on a batch [batch, in] is computed as y^T = W x^T. Its backward pass, dW = dy^T x, then returns dW in the
memory order of W. That of y = x W^T returns dW^T, and putting K of these in order takes longer than the product itself
(on a CPU 1.5 times for 64 x 256 x 256).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class Skeleton:
    """The forward pass of `model`, in its present mode, called with values for all of its weights and buffers."""

    def __init__(self, model: nn.Module) -> None:
        self._model = copy.deepcopy(model).to("meta")
        names: dict[Tensor, str] = {}
        self._places: list[tuple[dict[str, Any], str, str]] = []
        own = dict(self._model.named_modules(remove_duplicate=False))
        for place, module in model.named_modules(remove_duplicate=False):
            for kind in ("_parameters", "_buffers"):
                for key, value in getattr(module, kind).items():
                    if value is not None:
                        name = names.setdefault(value, f"{place}.{key}" if place else key)  # a tied weight has one
                        self._places.append((getattr(own[place], kind), key, name))
        for module in own.values():
            if type(module) is nn.Linear:
                module.forward = partial(_linear, module)  # type: ignore[method-assign]

    def __call__(self, values: Mapping[str, Tensor], inputs: Any) -> Any:
        """The outputs. `values`: name of a parameter or buffer -> value; tied ones have the first of their names."""
        return self.holding(values)(inputs)

    def holding(self, values: Mapping[str, Tensor]) -> nn.Module:
        """The module with these values, until others are given."""
        for place, key, name in self._places:
            place[key] = values[name]
        return self._model

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within this context, the model is in evaluation mode."""
        modes = {module: module.training for module in self._model.modules()}
        self._model.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    if x.dim() != 2:  # whose outputs would be in another order than what follows expects
        return F.linear(x, layer.weight, layer.bias)
    y = (layer.weight @ x.mT).mT
    return y if layer.bias is None else y + layer.bias
