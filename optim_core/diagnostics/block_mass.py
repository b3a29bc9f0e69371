"""How block-diagonal the Hessian is, by neurons and by layers (Zhang et al. 2024, arXiv 2410.19964, section 4.3).

    x Rademacher on block b, 0 elsewhere:   E |(H x)_b|^2 = |H_bb|_F^2,   E |H x|^2 = mass of the block's columns

The share of the squared Frobenius mass inside diagonal blocks is the ratio of the sums over b (Hutchinson 1990), in the
optimizer's basis: a block is a row of a rotated matrix, or a rotated tensor. 1: block-diagonal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optim_core.diagnostics.basis import Product, product_in_basis, shapes_in_basis
from optim_core.diagnostics.registry import Subject, diagnostic

PROBES, BLOCKS = 8, 16
Block = tuple[int, int, int]
"""(tensor, first coordinate, last coordinate + 1)."""


def mass_inside(product: Product, like: list[Tensor], blocks: list[Block], *, probes: int, seed: int) -> float:
    """Share in [0, 1] of the mass of the blocks' columns that lies inside the blocks; NaN if there is no mass."""
    draws = torch.Generator().manual_seed(seed)
    inside = total = 0.0
    for tensor, first, last in blocks:
        for _ in range(probes):
            signs = torch.randint(0, 2, (last - first,), generator=draws).mul_(2).sub_(1)
            x = [torch.zeros_like(t) for t in like]
            x[tensor].view(-1)[first:last] = signs.to(x[tensor])
            curved = product(x)
            inside += float(curved[tensor].reshape(-1)[first:last].square().sum())
            total += sum(float(h.square().sum()) for h in curved)
    return inside / total if total > 0 else float("nan")


def layer_blocks(like: list[Tensor]) -> list[Block]:
    """A block for each tensor."""
    return [(i, 0, t.numel()) for i, t in enumerate(like) if t.numel()]


def neuron_blocks(like: list[Tensor]) -> list[Block]:
    """A block for each row of each matrix."""
    matrices = [(i, t.shape[0], t.numel() // t.shape[0]) for i, t in enumerate(like) if t.ndim > 1 and t.numel()]
    return [(i, row * width, (row + 1) * width) for i, rows, width in matrices for row in range(rows)]


@diagnostic("block_mass")
def block_mass(subject: Subject) -> dict[str, float]:
    """geometry/block_mass_neuron, geometry/block_mass_layer: 8 probes for up to 16 blocks of either kind."""
    like, product = shapes_in_basis(subject), product_in_basis(subject)
    draws = torch.Generator().manual_seed(subject.seed)
    found = {}
    for name, blocks in (("neuron", neuron_blocks(like)), ("layer", layer_blocks(like))):
        chosen = torch.randperm(len(blocks), generator=draws)[:BLOCKS].tolist()
        share = mass_inside(product, like, [blocks[i] for i in chosen], probes=PROBES, seed=subject.seed)
        if share == share:
            found[f"geometry/block_mass_{name}"] = share
    return found
