"""The quadratic and the game on which methods are compared with their authors' code, in float64.

    f(x) = (x - c)' A (x - c) / 2 from x = 0,   A = M' M / 20 + I / 50 [6, 6]
    v(w) = J (w - c), J = [[P, B], [-B', Q]] [6, 6], P and Q like A, two players of three variables

M, B and c are normal numbers. Nothing is decomposed, so that the problems are the same on every machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RECORDED = (1, 2, 3, 10, 60)
"""Steps, counted from 1, after which the point is kept."""
FOLDER = Path(__file__).parent


def draw(*shape: int, seed: int) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def curvature(size: int, seed: int) -> Tensor:
    """A symmetric positive definite matrix."""
    M = draw(20, size, seed=seed)
    return M.T @ M / 20 + torch.eye(size, dtype=torch.float64) / 50


A, CENTRE = curvature(6, 1), draw(6, seed=2)
COUPLING = draw(3, 3, seed=5)
JACOBIAN = torch.cat([torch.cat([curvature(3, 3), COUPLING], 1), torch.cat([-COUPLING.T, curvature(3, 4)], 1)])
GAME_START = draw(6, seed=6)


def losses(x: Tensor, y: Tensor) -> list[Tensor]:
    """Of both players."""
    J, b = JACOBIAN, JACOBIAN @ CENTRE
    first = x @ (J[:3, :3] @ x / 2 + J[:3, 3:] @ y - b[:3])
    return [first, y @ (J[3:, 3:] @ y / 2 + J[3:, :3] @ x - b[3:])]


def read(name: str) -> dict[str, Any]:
    """A file of this folder."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found
