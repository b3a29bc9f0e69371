"""The inner problem: what it attains, where it stops, how far it may move (spec tests T12 to T17, T27, T33)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optim_core.curvature import GaussNewton, Newton, dot, named_weights
from optim_core.preconditioners import Factors, Structure, block
from optim_core.relaxation import Inner, Objective, Scale, control, descend, samples_of
from tests.optim_core.curvature_problems import cross_entropy, dense, flat, mlp, relative, squared, unflat


def pieces(structure: str, scale: Scale, metric: Any = GaussNewton, seed: int = 0) -> Any:
    """Blocks at the identity and the objective on the tanh network."""
    model, x, labels, _ = mlp(8)
    x = x + 0.1 * seed
    weights = named_weights(model, list(model.parameters()))
    objective = Objective(metric(model, weights, cross_entropy, x, labels), scale, samples_of(labels))
    owners = {p: m for m in model.modules() for p in m.parameters(recurse=False)}
    blocks = [block(structure, p, owners[p], 100) for p in weights.values()]
    factors = [b.identity(p.detach()) for b, p in zip(blocks, weights.values(), strict=True)]
    return blocks, factors, objective


def value(blocks: list[Structure], factors: list[Factors], objective: Objective) -> float:
    return float(objective.slope(control(blocks, factors, objective.gradient))[0])


PUBLISHED = {"lr": 1e-3, "momentum": 0.9}


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["diagonal", "kronecker", "e_kronecker", "psd_e_kronecker"])
@pytest.mark.parametrize("kind", ["mean", "sum", "normalised"])
@pytest.mark.parametrize("metric", [GaussNewton, Newton])
def test_inner_descent_lowers_the_objective_within_its_bound(structure: str, kind: str, metric: Any) -> None:
    """T12 on one batch, and T33: no tensor of U moves further than the clip lets it."""
    blocks, factors, objective = pieces(structure, Scale(kind=kind), metric)
    start = [{k: f.clone() for k, f in own.items()} for own in factors]
    clip = 1.0 if kind == "normalised" else 5.0
    inner = Inner(steps=50, clip=clip, clip_rms=kind == "normalised", **PUBLISHED)
    before, after = descend(blocks, factors, [objective], inner)
    assert float(before) == pytest.approx(value(blocks, start, objective), rel=1e-12)
    assert float(after) == pytest.approx(value(blocks, factors, objective), rel=1e-12)
    assert after < before
    reach = 1e-3 * sum((1 - 0.9**j) / 0.1 for j in range(1, 51))
    for own, old in zip(factors, start, strict=True):
        for key, f in own.items():
            size = f.numel() ** 0.5 if kind == "normalised" else 1.0
            assert float((f - old[key]).norm()) <= clip * size * reach * (1 + 1e-9)


def test_the_bound_is_reached_when_every_step_is_clipped() -> None:
    """T33 is tight."""
    blocks, factors, objective = pieces("diagonal", Scale(kind="normalised", curvature=1e6))
    inner = Inner(steps=3, clip=1e-3, clip_rms=False, lr=1e-3, momentum=0.9)
    old = factors[0]["scale"].clone()
    descend(blocks, factors, [objective], inner)
    bound = 1e-3 * 1e-3 * sum((1 - 0.9**j) / 0.1 for j in range(1, 4))
    assert float((factors[0]["scale"] - old).norm()) == pytest.approx(bound, rel=1e-6)


def test_several_batches_share_one_u() -> None:
    """The inner steps cycle through the batches; J is summed over them."""
    parts = [pieces("e_kronecker", Scale(kind="normalised"), seed=i) for i in range(3)]
    blocks, factors, objectives = parts[0][0], parts[0][1], [p[2] for p in parts]
    apart = sum(value(blocks, factors, o) for o in objectives)
    inner = Inner(steps=12, clip=1.0, clip_rms=True, **PUBLISHED)
    before, after = descend(blocks, factors, objectives, inner)
    assert float(before) == pytest.approx(apart, rel=1e-12)
    assert after < before


def exact() -> tuple[Objective, Tensor, Tensor]:
    """The objective, the gradient and the damped Gauss-Newton matrix of the tanh network."""
    model, x, labels, _ = mlp()
    gradient, matrix = dense(model, x, cross_entropy, labels, "gauss_newton")
    _, _, objective = pieces("diagonal", Scale(kind="mean", damping=0.1))
    return objective, gradient, matrix + 0.1 * torch.eye(len(gradient), dtype=torch.float64)


@pytest.mark.slow
def test_diagonal_attains_the_exact_step_on_one_gradient() -> None:
    """T13: U = -u*/g, with entries of both signs; T14: a non-negative diagonal lies strictly between."""
    objective, g, damped = exact()
    best = torch.linalg.solve(damped, -g)
    blocks, factors, _ = pieces("diagonal", Scale(kind="mean", damping=0.1))
    least = float(g @ best / 2)
    for own, d in zip(factors, unflat(-best / g, objective.gradient), strict=True):
        own["scale"] = d
    assert value(blocks, factors, objective) == pytest.approx(least, rel=1e-10)
    identity = float(-g @ g + g @ damped @ g / 2)
    d = torch.ones_like(g)
    lipschitz = float(torch.linalg.eigvalsh(damped).max() * g.abs().max() ** 2)
    for _ in range(2000):
        d = (d + g * (g - damped @ (d * g)) / lipschitz).clamp_min(0)
    u = -d * g
    between = float(g @ u + u @ damped @ u / 2)
    assert least < between < identity


def linear_problem(samples: int = 40, grads: int = 1) -> tuple[Tensor, list[Tensor], Tensor]:
    """A linear layer under squared error: X^T X / B + damping [4, 4], gradients [3, 4], the inverse."""
    generator = torch.Generator().manual_seed(5)
    X = torch.randn(samples, 4, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 0.7, 0.5, 0.4])
    A = X.T @ X / samples + 0.05 * torch.eye(4, dtype=torch.float64)
    gs = [torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(grads)]
    return A, gs, torch.linalg.inv(A)


def minimise(A: Tensor, gs: list[Tensor]) -> tuple[Factors, float]:
    """LBFGS on J averaged over the gradients, from the identity of a Kronecker block."""
    owner = nn.Linear(4, 3, bias=False)
    made = block("kronecker", owner.weight, owner, 100)
    factors = made.identity(torch.zeros(3, 4, dtype=torch.float64))
    leaves = [f.requires_grad_() for f in factors.values()]
    search = torch.optim.LBFGS(
        leaves, max_iter=2000, tolerance_grad=1e-13, tolerance_change=0, history_size=30, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        search.zero_grad()
        us = [-made.act(factors, g) for g in gs]
        J = torch.stack([(g * u).sum() + ((u @ A) * u).sum() / 2 for g, u in zip(gs, us, strict=True)]).mean()
        J.backward()
        return J

    search.step(closure)
    return factors, float(closure().detach())


def test_kronecker_attains_the_exact_step_of_a_linear_layer() -> None:
    """T15: (I, (X^T X / B + damping)^-1) does, and a search from the identity does."""
    A, (g,), inverse = linear_problem()
    least = float(-((g @ inverse) * g).sum() / 2)
    owner = nn.Linear(4, 3, bias=False)
    made = block("kronecker", owner.weight, owner, 100)
    u = -made.act({"rows": torch.eye(3, dtype=torch.float64), "columns": inverse}, g)
    assert float((g * u).sum() + ((u @ A) * u).sum() / 2) - least <= 1e-10
    assert minimise(A, [g])[1] - least <= 1e-10


@pytest.mark.slow
def test_many_gradients_determine_the_inverse_curvature_and_one_does_not() -> None:
    """T16."""
    A, gs, inverse = linear_problem(grads=30)
    shape = inverse / inverse.norm()

    def distance(factors: Factors) -> float:
        found = factors["columns"].detach()
        return relative(found / found.norm() * torch.sign((found * shape).sum()), shape)

    assert distance(minimise(A, gs)[0]) <= 1e-5
    assert distance(minimise(A, gs[:1])[0]) > 1e-2


def test_expected_diagonal_has_a_closed_form() -> None:
    """T17: (H o C)^-1 diag(C) is stationary for gradients of second moment C, and 1 / diag(H) for white ones."""
    H = exact()[2]
    generator = torch.Generator().manual_seed(2)
    root = torch.randn(len(H), len(H), generator=generator, dtype=torch.float64) / len(H) ** 0.5
    C = root @ root.T + 0.1 * torch.eye(len(H), dtype=torch.float64)
    d = torch.linalg.solve(H * C, C.diag()).requires_grad_()
    J = -(d * C.diag()).sum() + (torch.outer(d, d) * H * C).sum() / 2
    (slope,) = torch.autograd.grad(J, d)
    assert float(slope.abs().max()) <= 1e-9
    white = torch.linalg.solve(H * torch.eye(len(H), dtype=torch.float64), torch.ones(len(H), dtype=torch.float64))
    torch.testing.assert_close(white, 1 / H.diag())


def test_normalised_solution_does_not_depend_on_the_scale_of_the_loss() -> None:
    """T27, for both metrics."""
    model, x, _, values = mlp()
    weights = named_weights(model, list(model.parameters()))
    inner = Inner(steps=50, clip=1.0, clip_rms=True, **PUBLISHED)
    for metric in (GaussNewton, Newton):
        found = []
        for factor in (1.0, 1000.0):
            curvature = metric(model, weights, lambda z, t, factor=factor: factor * squared(z, t), x, values)
            blocks, factors, _ = pieces("diagonal", Scale(kind="normalised"))
            descend(blocks, factors, [Objective(curvature, Scale(kind="normalised", damping=1e-3), len(x))], inner)
            found.append(flat([f for own in factors for f in own.values()]))
        assert relative(found[1], found[0]) <= 1e-9
        assert float((found[0] - 1).abs().max()) > 1e-2


def test_non_finite_gradients_leave_u_finite() -> None:
    """T32, first half."""
    blocks, factors, objective = pieces("e_kronecker", Scale(kind="mean"))
    objective.gradient[0].view(-1)[0] = float("nan")
    objective.gradient[1].view(-1)[0] = float("inf")
    before, after = descend(blocks, factors, [objective], Inner(steps=5, clip=5.0, clip_rms=False, **PUBLISHED))
    assert all(bool(f.isfinite().all()) for own in factors for f in own.values())
    assert not bool(before.isfinite() and after.isfinite())


def test_dot_and_samples() -> None:
    assert float(dot([torch.ones(2, 2), torch.ones(3)], [torch.ones(2, 2), 2 * torch.ones(3)])) == 10.0
    assert samples_of(torch.zeros(4, 7, dtype=torch.long)) == 28
    assert samples_of(torch.zeros(4, 7)) == 4
    assert samples_of(None) == 1


class Summed(nn.Module):
    """Two tables enter as a sum, and a scale through its sum over an axis."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.token, self.position = nn.Embedding(7, 4), nn.Parameter(torch.randn(5, 4) * 0.3)
        self.delta = nn.Parameter(torch.randn(5, 4) * 0.3)
        self.scale = nn.Parameter(torch.rand(3, 4))
        self.head = nn.Linear(4, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.token(tokens) + (self.position + self.delta)
        return self.head(torch.tanh(hidden * self.scale.sum(0))).mean(1)


@pytest.mark.parametrize("metric", [GaussNewton, Newton])
@pytest.mark.parametrize("kind", ["mean", "normalised"])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_parameters_that_enter_as_a_sum_have_a_gradient_tensor_each(metric: Any, kind: str, damping: float) -> None:
    """J against the dense quadratic model: autograd hands out one tensor for both, and expanded ones for sums."""
    model = Summed().double()
    tokens = torch.randint(7, (6, 5), generator=torch.Generator().manual_seed(1))
    labels = torch.randint(7, (6,), generator=torch.Generator().manual_seed(2))
    weights = named_weights(model, list(model.parameters()))
    objective = Objective(
        metric(model, weights, cross_entropy, tokens, labels), Scale(kind=kind, curvature=0.7, damping=damping), 6
    )
    g, H = dense(model, tokens, cross_entropy, labels, "newton" if metric is Newton else "gauss_newton")
    factor = 0.7
    if kind == "normalised":
        factor = 0.7 / abs(float(g @ H @ g / (g @ g)))
        g = g / g.square().mean().sqrt()
    u = torch.randn(len(g), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    J, slope = objective.slope(unflat(u, list(model.parameters())))
    bend = factor * H @ u + damping * u
    assert float(J) == pytest.approx(float(g @ u + u @ bend / 2), rel=1e-10)
    assert relative(flat(slope), g + bend) <= 1e-10
