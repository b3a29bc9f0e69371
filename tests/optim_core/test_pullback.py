"""J^T v is what `torch.autograd.grad` says, to the bit, and costs no import of sympy."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from optim_core import pullback
from optim_core.pullback import pulled, pulled_whole

ALONE = """
import sys, torch
from optim_core.curvature import GaussNewton
model = torch.nn.Linear(3, 2)
weights = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
loss = torch.nn.functional.mse_loss
found = GaussNewton(model, weights, loss, torch.ones(4, 3), torch.zeros(4, 2)).product(list(weights.values()))
assert all(bool(t.any()) for t in found)
assert "sympy" not in sys.modules
"""


def problem() -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Two outputs, three inputs of which the last has no path, and vectors."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    hidden = model[:2](torch.randn(6, 5))
    outputs = [hidden, model[2](hidden)]
    vectors = [torch.randn_like(x).requires_grad_() for x in outputs]
    return outputs, [*model[0].parameters(), torch.zeros(2, requires_grad=True)], vectors


@pytest.mark.parametrize("engine", [True, False], ids=["engine", "without it"])
def test_the_same_bits_as_torch(engine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not engine:
        monkeypatch.setattr(pullback, "_engine", None)
    outputs, inputs, vectors = problem()
    told = torch.autograd.grad(outputs, inputs, vectors, create_graph=True, allow_unused=True)
    found = pulled(outputs, inputs, vectors, create_graph=True, allow_unused=True)
    assert told[-1] is None
    assert found[-1] is None
    assert all(torch.equal(a, b) for a, b in zip(found[:-1], told[:-1], strict=True) if a is not None and b is not None)
    twice = [
        torch.autograd.grad([g for g in slopes if g is not None], vectors, [torch.ones_like(p) for p in inputs[:-1]])
        for slopes in (found, told)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*twice, strict=True))
    assert torch.equal(pulled_whole(outputs, inputs, vectors)[-1], torch.zeros(2))


def test_what_torch_refuses_is_refused() -> None:
    outputs, inputs, vectors = problem()
    with pytest.raises(RuntimeError, match="to not have been used in the graph"):
        pulled(outputs, inputs, vectors, retain_graph=True)
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        pulled(outputs, inputs[:1], [vectors[0][:1], vectors[1]])


@pytest.mark.slow
def test_a_product_imports_no_sympy() -> None:
    subprocess.run([sys.executable, "-c", ALONE], check=True, timeout=120)
