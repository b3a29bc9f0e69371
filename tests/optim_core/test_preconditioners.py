"""Structures of U: identity at the start, gradients of J in their factors, positivity, views, caps (spec T10, T11)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optim_core.curvature import GaussNewton, named_weights
from optim_core.preconditioners import block, lookup, structures
from optim_core.preconditioners.base import view
from optim_core.relaxation import Objective, Scale, control
from tests.optim_core.curvature_problems import cross_entropy, mlp, random_like

NAMES = structures()
LINEAR = nn.Linear(4, 3)


def perturbed(made: Any, weight: Tensor, size: float = 0.3) -> dict[str, Tensor]:
    factors = made.identity(weight)
    return {k: f + size * r for (k, f), r in zip(factors.items(), random_like(list(factors.values())), strict=True)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_begins_as_the_identity(name: str, limit: int) -> None:
    """T11, also where the cap leaves no dense factor."""
    for owner, weight in ((LINEAR, torch.randn(3, 4).double()), (LINEAR, torch.randn(3).double())):
        made = block(name, weight, owner, limit)
        g = torch.randn_like(weight)
        acted = made.act(made.identity(weight), g)
        assert acted.shape == g.shape
        assert torch.equal(acted, g) or (float((acted - g).abs().max()) <= 1e-12 and name.startswith("psd_"))


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_the_objective_equals_finite_differences(name: str) -> None:
    """T10: along a random direction through the factors of all blocks, away from the identity."""
    model, x, labels, _ = mlp()
    weights = named_weights(model, list(model.parameters()))
    curvature = GaussNewton(model, weights, cross_entropy, x, labels)
    objective = Objective(curvature, Scale(kind="normalised", damping=1e-3), len(x))
    owners = {p: m for m in model.modules() for p in m.parameters(recurse=False)}
    blocks = [block(name, p, owners[p], 100) for p in weights.values()]
    factors = [perturbed(b, p.detach(), 0.1) for b, p in zip(blocks, weights.values(), strict=True)]
    leaves = [f.requires_grad_() for own in factors for f in own.values()]
    u = control(blocks, factors, objective.gradient)
    _, slope = objective.slope([t.detach() for t in u])
    pull = torch.autograd.grad(u, leaves, slope)
    way = random_like(leaves, 3)

    def value(step: float) -> float:
        moved = [{k: f.detach().clone() for k, f in own.items()} for own in factors]
        for f, d in zip([f for own in moved for f in own.values()], way, strict=True):
            f.add_(d, alpha=step)
        return float(objective.slope(control(blocks, moved, objective.gradient))[0])

    by_difference = (value(1e-5) - value(-1e-5)) / 2e-5
    by_formula = float(sum((a * b).sum() for a, b in zip(pull, way, strict=True)))
    assert by_formula == pytest.approx(by_difference, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_those_that_say_so_are_symmetric_and_positive(name: str) -> None:
    kind = lookup(name)
    weight = torch.randn(3, 4).double()
    made = block(name, weight, LINEAR, 100)
    factors = perturbed(made, weight, 1.0)
    made.clamp(factors, 1e-3, 1e3, True)
    eye = torch.eye(12, dtype=torch.float64).reshape(12, 3, 4)
    U = torch.stack([made.act(factors, e).flatten() for e in eye], 1)
    positive = torch.allclose(U, U.T, atol=1e-12) and float(torch.linalg.eigvalsh(U + U.T).min()) >= -1e-12
    assert positive == (kind.ALWAYS_POSITIVE or kind.POSITIVE_IF_CLAMPED)


def test_kronecker_kinds_are_what_they_say() -> None:
    G, weight = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    made = block("kronecker", weight, LINEAR, 100)
    f = perturbed(made, weight)
    torch.testing.assert_close(
        made.act(f, G).flatten(), torch.kron(f["rows"], f["columns"]) @ G.flatten(), rtol=1e-12, atol=1e-12
    )
    made = block("e_kronecker", weight, LINEAR, 100)
    f = perturbed(made, weight)
    basis = torch.kron(f["row_basis"], f["column_basis"])
    U = basis @ torch.diag(f["spectrum"].flatten()) @ basis.T
    torch.testing.assert_close(made.act(f, G).flatten(), U @ G.flatten(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "shape, owner, rows, columns, dense",
    [
        ((8, 3, 5, 5), nn.Conv2d(3, 8, 5), 8, 75, (True, True)),
        ((8, 3, 5, 5), nn.Conv2d(3, 8, 5), 8, 75, (True, False)),
        ((9, 6), nn.Embedding(9, 6), 9, 6, (False, True)),
        ((1, 7, 6), nn.Identity(), 7, 6, (True, True)),
    ],
)
def test_views(shape: tuple[int, ...], owner: nn.Module, rows: int, columns: int, dense: tuple[bool, bool]) -> None:
    limit = 100 if all(dense) or isinstance(owner, nn.Embedding) else 50
    seen = view(torch.empty(shape), owner, limit)
    assert (seen.rows, seen.columns, seen.dense_rows, seen.dense_columns) == (rows, columns, *dense)
    assert not seen.vector


def test_biases_and_norms_are_diagonal_and_caps_bound_the_memory() -> None:
    for owner in (nn.BatchNorm2d(4), nn.LayerNorm((2, 3)), nn.GroupNorm(2, 4), LINEAR):
        p = owner.bias
        assert p is not None
        made = block("e_kronecker", p, owner, 100)
        assert set(made.identity(p.detach())) == {"scale"}
        assert made.ELEMENTWISE
    big = nn.Linear(300, 20)
    held = block("e_kronecker", big.weight, big, 64).identity(big.weight.detach())
    assert sum(f.numel() for f in held.values()) == 20 * 300 + 20**2


def test_unknown_and_duplicate_names() -> None:
    with pytest.raises(ValueError, match="it must be one of diagonal"):
        lookup("kroneker")
    from optim_core.preconditioners import structure

    with pytest.raises(ValueError, match="registered twice"):
        structure("diagonal")(lookup("scalar"))
