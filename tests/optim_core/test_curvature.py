"""Fast products against dense float64 matrices (spec tests T6 to T9, T26), and what is said where none exists."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optim_core.curvature import GaussNewton, Newton, bends, dot, module_without_products, named_weights, softmax_kl
from optim_core.relaxation import Objective, Scale
from tests.optim_core.curvature_problems import (
    columns,
    cross_entropy,
    dense,
    flat,
    mlp,
    random_like,
    relative,
    residual,
    squared,
    unflat,
)

METRICS: list[tuple[str, Any]] = [("gauss_newton", GaussNewton), ("newton", Newton)]


def on(model: nn.Module, x: Any, loss: Any, targets: Any, kind: Any = GaussNewton, **more: Any) -> Any:
    return kind(model, named_weights(model, list(model.parameters())), loss, x, targets, **more)


@pytest.mark.slow
@pytest.mark.parametrize("metric, kind", METRICS)
def test_products_with_a_residual_network_equal_the_dense_matrix(metric: str, kind: Any) -> None:
    """T8, in forward mode and by double backward."""
    model, x, labels = residual()
    gradient, matrix = dense(model, x, cross_entropy, labels, metric)
    fast = on(model, x, cross_entropy, labels, kind)
    assert relative(flat(fast.gradient), gradient) <= 1e-12
    assert relative(columns(fast), matrix) <= 1e-8
    if kind is GaussNewton:
        fast._modes.reverse()
        assert relative(columns(fast), matrix) <= 1e-8


@pytest.mark.parametrize("metric, kind", METRICS)
@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_products_with_a_perceptron_equal_the_dense_matrix(metric: str, kind: Any, loss: str) -> None:
    """T6, T7 by whole-network products."""
    model, x, labels, values = mlp()
    function, targets = (cross_entropy, labels) if loss == "cross_entropy" else (squared, values)
    gradient, matrix = dense(model, x, function, targets, metric)
    fast = on(model, x, function, targets, kind)
    assert relative(columns(fast), matrix) <= 1e-10
    u = random_like(fast.gradient)
    value, slope = Objective(fast, Scale(kind="mean", damping=0.1), len(x)).slope(u)
    v = flat(u)
    assert float(value) == pytest.approx(float(gradient @ v + v @ matrix @ v / 2 + 0.05 * v @ v), rel=1e-10)
    assert relative(flat(slope), gradient + matrix @ v + 0.1 * v) <= 1e-10


def test_fisher_of_the_softmax_is_gauss_newton_of_cross_entropy() -> None:
    model, x, labels, _ = mlp()
    fisher = on(model, x, cross_entropy, labels, divergence=softmax_kl)
    assert relative(columns(fisher), columns(on(model, x, cross_entropy, labels))) <= 1e-10
    other = on(model, x, lambda z, t: z.square().mean(), labels, divergence=softmax_kl)
    assert relative(columns(other), columns(fisher)) <= 1e-10


def test_sum_scale_multiplies_the_curvature_by_the_batch() -> None:
    """T26."""
    model, x, labels, _ = mlp()
    fast = on(model, x, cross_entropy, labels)
    u = random_like(fast.gradient)
    bend = {
        kind: flat(Objective(fast, Scale(kind=kind), len(x)).slope(u)[1]) - flat(fast.gradient)
        for kind in ("mean", "sum")
    }
    assert relative(bend["sum"], len(x) * bend["mean"]) <= 1e-12


def test_normalised_scale_has_unit_gradient_and_unit_rayleigh_quotient() -> None:
    model, x, labels, _ = mlp()
    fast = on(model, x, cross_entropy, labels)
    scaled = Objective(fast, Scale(kind="normalised"), len(x))
    g = scaled.gradient
    assert float(flat(g).square().mean()) == pytest.approx(1.0, rel=1e-12)
    value, _ = scaled.slope([-t for t in g])
    assert float(value) == pytest.approx(-float(dot(g, g)) / 2, rel=1e-12)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.frozen(self.table(x))))


def test_tied_unused_and_frozen_weights() -> None:
    torch.manual_seed(0)
    model = Tied().double()
    x, y = torch.tensor([0, 1, 2, 2]), torch.tensor([4, 3, 1, 0])
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = named_weights(model, trained)
    assert list(weights) == ["table.weight", "unused.weight", "unused.bias"]
    _, matrix = dense(model.head, model.frozen(model.table(x)), cross_entropy, y, "gauss_newton")
    for kind in (GaussNewton, Newton):
        fast = kind(model, weights, cross_entropy, x, y)
        found = columns(fast)
        assert relative(found, found.T) <= 1e-12
        assert not found[15:].any()
        assert not torch.allclose(found[:15, :15], matrix)  # the table's own share is in it too
    step, like = 1e-6, fast.gradient
    u = random_like(like)
    there = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, v in zip(trained, u, strict=True):
                p.add_(v, alpha=sign * step)
        there.append(flat(Newton(model, weights, cross_entropy, x, y).gradient))
        with torch.no_grad():
            for p, v in zip(trained, u, strict=True):
                p.sub_(v, alpha=sign * step)
    assert relative((there[0] - there[1]) / (2 * step), found @ flat(u)) <= 1e-7


def test_attention_has_products() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0), nn.Flatten(), nn.Linear(24, 3)
    ).double()
    x, y = torch.randn(2, 3, 8, dtype=torch.float64), torch.tensor([0, 2])
    fast = on(model.eval(), x, cross_entropy, y)
    u = random_like(fast.gradient)
    by_backward = fast.jvp(u)
    assert relative(by_backward, fast._jvp_in_forward_mode(u)) <= 1e-10


class Once(torch.autograd.Function):
    """An operation with a first derivative only."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, g: Tensor) -> Tensor:
        return g.clone()


class Stubborn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(x)


def test_a_module_without_products_is_found() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Tanh(), Stubborn()), nn.Linear(3, 2))
    assert module_without_products(model, {}, torch.randn(2, 3)) == "1.1 (Stubborn)"
    assert module_without_products(nn.Sequential(nn.Linear(3, 3)), {}, torch.randn(2, 3)) is None


def test_forward_mode_gives_way_to_double_backward() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(context: Any, g: Tensor) -> Tensor:
            return 2 * g

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Twice.apply(x)

    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    model = nn.Sequential(nn.Conv1d(1, 2, 3), Odd(), nn.Flatten(), nn.Linear(4, 2)).double()
    twin = nn.Sequential(model[0], Doubled(), *model[2:])
    x, y = torch.randn(3, 1, 4, dtype=torch.float64), torch.tensor([0, 1, 1])
    fast = on(model, x, cross_entropy, y)
    assert relative(columns(fast), dense(twin, x, cross_entropy, y, "gauss_newton")[1]) <= 1e-10
    assert len(fast._modes) == 1


@pytest.mark.parametrize(
    "loss, message",
    [
        (lambda z, t: z.sum(1), "scalar"),
        (lambda z, t: torch.ones(()), "does not depend on the outputs"),
        (lambda z, t: 1.0, "scalar"),
    ],
)
def test_a_loss_that_is_no_function_of_the_outputs_is_refused(loss: Any, message: str) -> None:
    model, x, labels, _ = mlp()
    with pytest.raises((TypeError, ValueError), match=message):
        on(model, x, loss, labels)


def test_a_penalty_on_weights_inside_the_loss_is_refused() -> None:
    model, x, labels, _ = mlp()
    with pytest.raises(ValueError, match="weight_decay"):
        on(model, x, lambda z, t: cross_entropy(z, t) + model[0].weight.square().sum(), labels)


def test_linear_losses_have_no_curvature() -> None:
    z, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert not bends(nn.functional.nll_loss, z, labels)
    assert not bends(lambda z, t: z.abs().mean(), z, labels)
    assert bends(cross_entropy, 100 * z, labels)
    assert bends(nn.functional.huber_loss, z, torch.zeros(4, 3))


def test_unflat_is_the_inverse_of_flat() -> None:
    model, *_ = mlp()
    params = list(model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(unflat(flat(params), params), params, strict=True))
