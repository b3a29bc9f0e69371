"""J^T v by reverse mode: `torch.autograd.grad` with vectors, with the same bits, without its costly first import.

Given vectors, torch compares shapes symbolically, which imports sympy: 0.4 s of CPU in every process that computes a
curvature product. Sizes here are numbers, so torch's engine is called as `torch.autograd.grad` calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_engine: Any = getattr(torch.autograd.graph, "_engine_run_backward", None)
"""Private to torch: without it `torch.autograd.grad` is used."""
PLAIN = (Tensor, torch.nn.Parameter)
"""Subclasses of tensors may define gradients differently."""


def pulled(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    vectors: Sequence[Tensor],
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> list[Tensor | None]:
    """For each input, sum_i (d outputs_i / d input)^T vectors_i; with `allow_unused`, None for one without a path.

    Raises RuntimeError for a vector without its output's shape, and the exceptions of `torch.autograd.grad`.
    """
    keep = retain_graph or create_graph
    same = all(x.shape == v.shape for x, v in zip(outputs, vectors, strict=True))
    plain = all(type(x) in PLAIN for x in (*outputs, *inputs))
    if _engine is None or not same or not plain or not inputs:
        return list(
            torch.autograd.grad(
                list(outputs),
                list(inputs),
                list(vectors),
                retain_graph=keep,
                create_graph=create_graph,
                allow_unused=allow_unused,
            )
        )
    found = _engine(
        tuple(outputs), tuple(vectors), keep, create_graph, tuple(inputs), allow_unused, accumulate_grad=False
    )
    return list(found)


def pulled_whole(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    vectors: Sequence[Tensor],
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> list[Tensor]:
    """The same, with zeros for an input without a path."""
    found = pulled(outputs, inputs, vectors, retain_graph=retain_graph, create_graph=create_graph, allow_unused=True)
    return [
        torch.zeros_like(x, requires_grad=create_graph) if g is None else g for x, g in zip(inputs, found, strict=True)
    ]
