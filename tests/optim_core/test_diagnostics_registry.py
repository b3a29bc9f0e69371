"""Diagnostics by name; a measurement leaves no trace in what it measures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optim_core.diagnostics import Subject, diagnostic, lookup, measure, registry
from optim_core.named import Named


@pytest.fixture
def disturbing(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(registry, "_REGISTRY", Named("diagnostic"))

    @diagnostic("disturbing")
    def touch(subject: Subject) -> dict[str, float]:
        """Trains a little, draws at random and moves the running statistics."""
        subject.model.train()
        inputs, targets = subject.batches[0]
        subject.loss(subject.model(inputs), targets).backward()
        with torch.no_grad():
            for p in subject.model.parameters():
                p.add_(torch.randn_like(p))
        return {"geometry/seen": 1.0}

    return "disturbing"


def subject(model: nn.Module) -> Subject:
    batch = torch.randn(8, 3), torch.randn(8, 2)
    return Subject(model=model, loss=nn.functional.mse_loss, batches=[batch])


def test_a_measurement_leaves_everything_as_found(disturbing: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[0].eval()
    model[0].weight.grad = torch.ones(4, 3)
    before = [t.clone() for t in model.state_dict().values()]
    draws = torch.random.get_rng_state()
    given = subject(model)
    torch.random.set_rng_state(draws)
    assert measure([disturbing], given) == {"geometry/seen": 1.0}
    assert torch.equal(torch.random.get_rng_state(), draws)
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    assert torch.equal(model[0].weight.grad, torch.ones(4, 3))
    assert model[2].weight.grad is None
    assert [m.training for m in model] == [False, True, True]


def test_names_are_unique_known_and_prefixed(disturbing: str) -> None:
    with pytest.raises(ValueError, match="registered twice"):
        diagnostic("disturbing")(lambda s: {})
    with pytest.raises(KeyError, match="did you mean disturbing"):
        lookup("disturbin")
    diagnostic("stray")(lambda s: {"loss": 1.0})
    with pytest.raises(ValueError, match="begin with geometry/"):
        measure(["stray"], subject(nn.Linear(3, 2)))
