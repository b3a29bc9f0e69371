"""The problem on which optimizers are compared with their authors' code, in float64, 100 steps.

    gradient of a tensor W = c * W + n_t,   c in [0.1, 1] fixed entrywise, n_t normal with deviation 0.3

It depends on the weights, so that an error is fed back, and not on the platform. Shapes with one axis longer than the
others together by more than one are avoided: their first Gram matrix has a null space, and its basis is arbitrary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SHAPES: tuple[tuple[int, ...], ...] = ((5, 4), (4, 5), (4, 4), (2,), (), (2, 3, 2), (3, 2, 2, 2))
MATRICES = ((5, 4), (4, 5), (4, 4), (6, 2))
RECORDED = (1, 2, 3, 12, 100)
"""Steps, counted from 1, after which the weights are kept."""
FOLDER = Path(__file__).parent


def draw(shape: Sequence[int], seed: int) -> Tensor:
    """Normal numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)


class Tensors(nn.Module):
    """Parameters of the given shapes, called t0, t1, .., and their gradients at each step."""

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.curvatures = []
        for i, shape in enumerate(shapes):
            self.register_parameter(f"t{i}", nn.Parameter(draw(shape, i)))
            self.curvatures.append(0.1 + 0.9 * torch.sigmoid(draw(shape, 1000 + i)))

    def differentiate(self, step: int) -> Tensor:
        """Put the gradients of the step, counted from 1, in place; returns something like a loss."""
        for i, p in enumerate(self.parameters()):
            p.grad = self.curvatures[i] * p.detach() + 0.3 * draw(p.shape, 100_000 + 100 * step + i)
        return torch.ones(())


def trajectory(model: Tensors, step: Callable[[int], Any]) -> dict[str, list[list[float]]]:
    """Weights, flattened, of every tensor after the recorded steps; `step` gets the number of each."""
    found: dict[str, list[list[float]]] = {}
    for number in range(1, max(RECORDED) + 1):
        step(number)
        if number in RECORDED:
            found[str(number)] = flat(model.parameters())
    return found


def flat(tensors: Iterable[Tensor]) -> list[list[float]]:
    """The numbers of each."""
    return [t.detach().reshape(-1).tolist() for t in tensors]


def read(name: str) -> dict[str, Any]:
    """A file of this folder."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found
