"""Muon on hidden matrices, AdamW on the rest: torch's own two optimizers, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core.hidden import hidden_matrices
from tests.closures import closure_of
from tests.contracts.optimizer_contract import Run, equal
from tests.optim_core.test_layout import Words


def test_muon_is_torchs_muon_on_hidden_matrices_and_adamw_on_the_rest() -> None:
    ours = Run(lambda m: optim_core.build("muon", m, lr=0.01, adjust_lr="original", adamw_lr_scale=0.5))

    def twin(m: nn.Module) -> Any:
        class Both(torch.optim.SGD):
            def step(self, closure: Any = None) -> Tensor:
                with torch.enable_grad():
                    loss = closure()
                for inner in self.inner:
                    inner.step()
                return loss

        found = Both(m.parameters(), lr=0.0)
        first, *rest = m.parameters()
        found.inner = [torch.optim.Muon([first], lr=0.01, adjust_lr_fn="original")]
        found.inner.append(torch.optim.AdamW(rest, lr=0.005, weight_decay=0.1, fused=True))
        return found

    other = Run(twin)
    assert ours.steps(0, 10) == other.steps(0, 10)
    assert equal(ours.weights(), other.weights())
    with pytest.raises(ValueError, match="adjust_lr"):
        optim_core.build("muon", nn.Linear(2, 2), adjust_lr="none")


def test_muon_takes_hidden_matrices_and_convolutions() -> None:
    model = Words(tied=False)
    names = {name for name, p in model.named_parameters() if any(p is h for h in hidden_matrices(model))}
    assert names == {"attn.in_proj_weight", "attn.out_proj.weight", "fc1.weight", "fc2.weight", "conv.weight"}
    conv = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    optimizer = optim_core.build("muon", conv, lr=0.1, weight_decay=0.0)
    home = conv[0].weight.detach().clone()

    x = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    optimizer.step(closure_of(optimizer, lambda: conv(x).square().sum()))
    s = torch.linalg.svdvals((conv[0].weight.detach() - home).view(3, -1))
    assert float(s.std() / s.mean()) < 0.3
