"""Small float64 networks and dense reference matrices for the tests of curvature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from optim_core.curvature import Curvature

cross_entropy = nn.functional.cross_entropy


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets) ** 2).sum(1).mean() / 2


def mlp(samples: int = 8) -> tuple[nn.Sequential, Tensor, Tensor, Tensor]:
    """Tanh network 5-6-5-3 with inputs, labels and regression targets."""
    generator = torch.Generator().manual_seed(4)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.6)
    x = torch.randn(samples, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (samples,), generator=generator)
    return model, x, labels, torch.randn(samples, 3, generator=generator, dtype=torch.float64)


class Residual(nn.Module):
    """Convolution, BatchNorm in evaluation mode, a skip, pooling and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.inner = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.norm(self.stem(x)))
        y = torch.relu(self.inner(y)) + y
        return self.head(y.mean((2, 3)))


def residual() -> tuple[Residual, Tensor, Tensor]:
    torch.manual_seed(2)
    model = Residual().double()
    model.norm.running_mean.uniform_(-0.5, 0.5)
    model.norm.running_var.uniform_(0.5, 2.0)
    x = torch.randn(6, 1, 4, 4, dtype=torch.float64)
    return model.eval(), x, torch.randint(4, (6,))


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


def unflat(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    return [v.reshape(p.shape) for v, p in zip(vector.split([p.numel() for p in like]), like, strict=True)]


def random_like(params: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in params]


def dense(model: nn.Module, x: Any, loss: Any, targets: Any, metric: str) -> tuple[Tensor, Tensor]:
    """The gradient [P] and the matrix [P, P] by brute force."""
    named = dict(model.named_parameters())
    params = list(named.values())

    def outputs(w: Tensor) -> Tensor:
        return functional_call(model, dict(zip(named, unflat(w, params), strict=True)), (x,))

    w = flat(params)
    gradient = torch.func.grad(lambda w: loss(outputs(w), targets))(w)
    if metric == "newton":
        return gradient, torch.func.hessian(lambda w: loss(outputs(w), targets))(w)
    z = outputs(w)
    J = torch.func.jacrev(outputs)(w).reshape(z.numel(), -1)
    Q = torch.func.hessian(lambda z: loss(z, targets))(z).reshape(z.numel(), z.numel())
    return gradient, J.T @ Q @ J


def columns(curvature: Curvature) -> Tensor:
    """The whole matrix, product by product."""
    like = curvature.gradient
    eye = torch.eye(sum(g.numel() for g in like), dtype=torch.float64)
    return torch.stack([flat(curvature.product(unflat(e, like))) for e in eye], 1)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())
