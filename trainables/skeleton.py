"""A model without weights of its own: its forward pass with weights passed in, for `torch.vmap` over many weights.

A linear layer of K runs is one batched product in each direction, with weights [K, out, in]:

    y = x W^T + b,   dW = dy^T x,   dx = dy W,   db = sum dy.

dW thus has the memory order of W. The backward pass that `vmap` derives returns dW^T instead, and putting that in order
takes longer than the product itself (on a CPU 1.5 times for 64 x 256 x 256).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
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
    if torch.is_autocast_enabled(x.device.type):  # which knows `linear` and would not see inside
        return F.linear(x, layer.weight, layer.bias)
    found: Tensor = _Linear.apply(x, layer.weight, layer.bias)  # type: ignore[no-untyped-call]
    return found


class _Linear(torch.autograd.Function):
    """A linear layer of one run, which `vmap` turns into one of several."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:  # type: ignore[override]
        raise NotImplementedError("only several runs are trained through it")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:  # type: ignore[override]
        x, weight, *rest = (
            part.expand(info.batch_size, *part.shape) if dim is None else part.movedim(dim, 0)
            for part, dim in zip((x, weight, bias), in_dims, strict=True)
            if part is not None
        )
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        y: Tensor = _Rows.apply(flat, weight, rest[0] if rest else None)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], -1), 0


class _Rows(torch.autograd.Function):
    """x [K, batch, in], weight [K, out, in], bias [K, out] -> [K, batch, out]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        return torch.bmm(x, weight.mT) if bias is None else torch.baddbmm(bias[:, None], x, weight.mT)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (
            torch.bmm(dy, weight) if needed[0] else None,
            torch.bmm(dy.mT, x) if needed[1] else None,
            dy.sum(1) if needed[2] else None,
        )
