"""The layerwise regulator equals the dense damped step (spec tests T1 to T7)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from optim_core.curvature import softmax_kl
from optim_core.riccati import Problem, linearise, objective, solve
from tests.optim_core.curvature_problems import cross_entropy, dense, flat, mlp, relative, squared

CASES = [("gauss_newton", 1e-3), ("gauss_newton", 1e-1), ("newton", 1e-2), ("newton", 1.0)]


def case(metric: str, damping: float, kind: str) -> tuple[Problem, Tensor, Tensor]:
    """The regulator, the dense gradient and the dense damped matrix."""
    model, x, labels, values = mlp()
    loss, targets = (cross_entropy, labels) if kind == "cross_entropy" else (squared, values)
    gradient, matrix = dense(model, x, loss, targets, metric)
    regulator = linearise(list(model), x, lambda z: loss(z, targets), metric=metric)
    return regulator, gradient, matrix + damping * torch.eye(len(gradient), dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cross_entropy", "squared"])
@pytest.mark.parametrize("metric, damping", CASES)
def test_step_inertia_and_value(metric: str, damping: float, kind: str) -> None:
    """T1 to T4: also where the damped Hessian is indefinite, and the recursion finds its stationary point."""
    regulator, gradient, damped = case(metric, damping, kind)
    found = solve(regulator, damping)
    step = -torch.linalg.solve(damped, gradient)
    assert relative(flat(found.controls), step) <= 1e-8
    negative = sum(int((torch.linalg.eigvalsh(S) < 0).sum()) for S in found.pivots if S.numel())
    assert negative == int((torch.linalg.eigvalsh(damped) < 0).sum())
    assert negative == 0 if metric == "gauss_newton" else negative > 0
    assert float(found.value) == pytest.approx(float(gradient @ step / 2), rel=1e-9)


def test_metrics_of_hidden_layers_add_up() -> None:
    """T5: 0.7 and 0.4 times a divergence of two hidden layers beside the Fisher matrix of the output."""
    model, x, labels, _ = mlp()
    hidden: dict[int, Any] = {2: (0.7, model[:2](x).detach()), 4: (0.4, model[:4](x).detach())}

    def divergence(weight: float, reference: Tensor) -> Any:
        return lambda z: weight * ((z - reference) ** 2 * (1 + reference**2)).sum() / len(x)

    gradient, matrix = dense(model, x, cross_entropy, labels, "gauss_newton")
    for depth, (weight, reference) in hidden.items():
        part = model[:depth]
        size = sum(p.numel() for p in part.parameters())
        bend = divergence(weight, reference)
        _, own = dense(part, x, lambda z, _, bend=bend: bend(z), None, "gauss_newton")
        matrix[:size, :size] += own
    damped = matrix + 1e-2 * torch.eye(len(matrix), dtype=torch.float64)
    extra = {depth: divergence(*pair) for depth, pair in hidden.items()}
    found = solve(linearise(list(model), x, lambda z: cross_entropy(z, labels), intermediate=extra), 1e-2)
    assert relative(flat(found.controls), -torch.linalg.solve(damped, gradient)) <= 1e-8
    with pytest.raises(ValueError, match=r"1 \.\. 4"):
        linearise(list(model), x, lambda z: cross_entropy(z, labels), intermediate={5: divergence(1.0, x)})


@pytest.mark.parametrize("metric", ["gauss_newton", "newton"])
def test_objective_and_control_gradient(metric: str) -> None:
    """T6, T7: rolling out and back equals the quadratic model and its gradient, for any controls."""
    regulator, gradient, damped = case(metric, 0.1, "cross_entropy")
    u = torch.randn(len(gradient), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sizes = [stage.control.shape[1] for stage in regulator.stages]
    value, slopes = objective(regulator, list(u.split(sizes)), 0.1)
    assert float(value) == pytest.approx(float(gradient @ u + u @ damped @ u / 2), rel=1e-10)
    assert relative(flat(slopes), gradient + damped @ u) <= 1e-10


def test_kl_divergence_has_no_costate_at_the_logits_and_the_fisher_matrix_as_its_hessian() -> None:
    """T9: also B times the Hessian of the mean cross-entropy."""
    _, _, labels, z = mlp()
    reference = z.clone()
    assert float(torch.func.grad(lambda c: softmax_kl(reference, c))(z).abs().max()) <= 1e-12
    s = z.softmax(1)
    fisher = torch.block_diag(*[torch.diag(p) - torch.outer(p, p) for p in s])
    bend = torch.func.hessian(lambda c: softmax_kl(reference, c))(z).reshape(24, 24)
    mean = torch.func.hessian(lambda c: cross_entropy(c, labels))(z).reshape(24, 24)
    assert float((len(z) * bend - fisher).abs().max()) <= 1e-12
    assert float((len(z) * mean - fisher).abs().max()) <= 1e-12


class Attending(nn.Module):
    """Two tokens of three features attend to each other through torch's own kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.unflatten(1, (2, 3))
        return nn.functional.scaled_dot_product_attention(self.query(tokens), tokens, tokens).flatten(1)


def by_double_backward(model: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The dense gradient and Hessian of the mean cross-entropy, without forward mode."""
    params = list(model.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        slope = torch.cat(
            [g.flatten() for g in torch.autograd.grad(cross_entropy(model(x), labels), params, create_graph=True)]
        )
    rows = [flat(torch.autograd.grad(slope, params, e, retain_graph=True)) for e in torch.eye(len(slope)).double()]
    return slope.detach(), torch.stack(rows)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["layer_norm", "batch_norm", "attention"])
def test_newton_through_norms_and_attention(kind: str) -> None:
    torch.manual_seed(3)
    middle = {"layer_norm": nn.LayerNorm(6), "batch_norm": nn.BatchNorm1d(6), "attention": Attending()}[kind]
    model = nn.Sequential(nn.Linear(4, 6), middle, nn.Tanh(), nn.Linear(6, 3)).double().train()
    x, labels = torch.randn(5, 4, dtype=torch.float64), torch.randint(3, (5,))
    buffers = [b.clone() for b in model.buffers()]
    regulator = linearise(list(model), x, lambda z: cross_entropy(z, labels), metric="newton")
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), buffers, strict=True))
    gradient, H = by_double_backward(model, x, labels)
    u = torch.randn(len(gradient), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value, slopes = objective(regulator, list(u.split([s.control.shape[1] for s in regulator.stages])), 0.0)
    assert float(value) == pytest.approx(float(gradient @ u + u @ H @ u / 2), rel=1e-9)
    assert relative(flat(slopes), gradient + H @ u) <= 1e-9
    damped = H + 0.5 * torch.eye(len(H), dtype=torch.float64)
    assert relative(flat(solve(regulator, 0.5).controls), -torch.linalg.solve(damped, gradient)) <= 1e-8


def test_layers_that_share_a_parameter_are_refused() -> None:
    layer, other = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
    other.weight = layer.weight
    for twice in ([layer, nn.Tanh(), layer], [layer, nn.Tanh(), other]):
        with pytest.raises(ValueError, match="share a parameter"):
            linearise(twice, torch.randn(2, 4, dtype=torch.float64), lambda z: z.square().mean())
