"""Quadratics over weight matrices with Kronecker curvature: does the basis matter to an optimizer, and on which side?

    loss = sum_l 1/2 tr(A_l W_l B_l W_l^T),   W_l [24, 16] from N(0, 1),   gradient A_l W_l B_l,   minimum 0 at W = 0

`rows`    three layers, A_l = c_l times a diagonal of 24 values log-spaced from 1 to 1e-3 in random order, c = 1, 0.1,
          0.01; B_l dense, 16 values log-spaced from 1 to 1e-2 in a Haar basis: curvature differs between rows, so that
          mixing entries of one row costs nothing and mixing anything else does.
`hidden`  two layers, A_l and B_l both dense with values from 1 to 1e-2 in Haar bases of their own: the good basis is a
          product of two rotations that no random rotation hits.
`aligned` as `rows` with B_l diagonal: the basis of the weights is ideal.

float64; gradients are exact, so batches are empty. The seed determines A, B and W.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from trainables.registry import task
from trainables.task_class import Batch, Metric, Model, Task

OUT, IN = 24, 16


class Layers(nn.Module):
    """The weights; a call returns the loss, whatever the input."""

    def __init__(self, factors: list[tuple[Tensor, Tensor]], generator: torch.Generator) -> None:
        super().__init__()
        weights = [torch.randn(OUT, IN, generator=generator, dtype=torch.float64) for _ in factors]
        self.weights = nn.ParameterList([nn.Parameter(w) for w in weights])
        for i, (a, b) in enumerate(factors):
            self.register_buffer(f"a{i}", a)
            self.register_buffer(f"b{i}", b)
        with torch.no_grad():
            self.register_buffer("initial", self(torch.zeros(())).clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """The loss, a scalar."""
        curved = (getattr(self, f"a{i}") @ w @ getattr(self, f"b{i}") * w for i, w in enumerate(self.weights))
        return 0.5 * cast(Tensor, sum(term.sum() for term in curved))


@task("kronecker")
class Kronecker(Task):
    """`curvature`: rows, hidden or aligned."""

    FREE = frozenset()
    METRICS: ClassVar = {"loss/relative": Metric(goal="minimize", worst=1e12)}
    KINDS: ClassVar = ("rows", "hidden", "aligned")
    divergence_loss: float = 1e12

    def __init__(self, *, curvature: str = "rows") -> None:
        if curvature not in self.KINDS:
            raise ValueError(f"curvature is {curvature!r}; available: {', '.join(self.KINDS)}")
        self._curvature = curvature

    def model(self, seed: int) -> Model:
        """Weights and curvatures of this seed."""
        generator = torch.Generator().manual_seed(seed)
        if self._curvature == "hidden":
            factors = [(_dense(OUT, 1e-2, generator), _dense(IN, 1e-2, generator)) for _ in range(2)]
        else:
            factors = []
            for scale in (1.0, 0.1, 0.01):
                rows = torch.logspace(0, -3, OUT, dtype=torch.float64)[torch.randperm(OUT, generator=generator)]
                columns = _dense(IN, 1e-2, generator)
                if self._curvature == "aligned":
                    columns = torch.diag(torch.logspace(0, -2, IN, dtype=torch.float64))
                factors.append((scale * torch.diag(rows), columns))
        return Layers(factors, generator)

    def batch(self, seed: int, index: int) -> Batch:
        """Nothing."""
        return torch.zeros(()), torch.zeros(())

    def batch_identity(self, seed: int, index: int) -> bytes:
        """The seed."""
        return str(seed).encode()

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """What the model returned."""
        return outputs

    def evaluate(self, model: Model) -> dict[str, float]:
        """Loss relative to the initial one."""
        assert isinstance(model, Layers)
        with torch.no_grad():
            return {"loss/relative": float(model(torch.zeros(())) / model.initial)}


def _dense(n: int, smallest: float, generator: torch.Generator) -> Tensor:
    """Symmetric [n, n] with eigenvalues log-spaced from 1 to `smallest` in a Haar basis."""
    q, t = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    q = q * torch.where(t.diagonal() < 0, -1.0, 1.0).to(q)
    values = torch.logspace(0, float(torch.tensor(smallest).log10()), n, dtype=torch.float64)
    found: Tensor = q @ torch.diag(values) @ q.T
    return found
