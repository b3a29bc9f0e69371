"""LLQR on models and batches as people have them: casts in the code, flattened targets, time first, masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from tests.closures import closure_of
from tests.contracts.optimizer_contract import equal
from tests.optim_core.curvature_problems import cross_entropy

T, V = 5, 7


class Casting(nn.Module):
    """Computes in `kind`, by casts in its own code of weights and inputs that are stored wider."""

    def __init__(self, kind: torch.dtype | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.kind = nn.Linear(6, 8), nn.Linear(8, 3), kind

    def forward(self, x: Tensor) -> Tensor:
        w, b = self.first.weight, self.first.bias
        if self.kind is not None:
            x, w, b = x.to(self.kind), w.type(self.kind), b.to(dtype=self.kind)
        hidden = torch.tanh(nn.functional.linear(x, w, b))
        return self.last(hidden.to(self.last.weight.dtype))


class CastingInput(nn.Module):
    """bfloat16 weights and a cast of what comes in and goes out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.bfloat16()).bfloat16()


def geometry(model: nn.Module, metric: str) -> list[Tensor]:
    """U after one refresh."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(16, 6, generator=generator), torch.randint(3, (16,), generator=generator)
    loss = lambda outputs, labels: cross_entropy(outputs.float(), labels)  # noqa: E731
    optimizer = optim_core.build("llqr", model, lr=0.0, metric=metric, loss=loss, refresh_batches=lambda i: (x, y))
    optimizer.step(closure_of(optimizer, lambda: loss(model(x), y)))
    assert optimizer.refreshes == 1
    return [v for s in optimizer.state.values() for k, v in s.items() if k.startswith("geometry_")]


@pytest.mark.parametrize("metric", ["ngd", "newton"])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_curvature_is_measured_in_float32_where_the_model_casts_by_itself(metric: str, kind: torch.dtype) -> None:
    assert equal(geometry(Casting(kind), metric), geometry(Casting(None), metric))


@pytest.mark.parametrize("metric", ["ngd", "newton"])
def test_bfloat16_weights_beside_a_cast_to_bfloat16(metric: str) -> None:
    found = geometry(CastingInput().bfloat16(), metric)
    assert all(f.dtype == torch.float32 and bool(f.isfinite().all()) for f in found)


class Flattening(nn.Module):
    """[B, T] tokens -> logits [B T, V], for targets [B T]."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(V, 4), nn.Linear(4, V)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.table(tokens))).flatten(0, 1)


class TimeFirst(nn.Module):
    """[T, B, features] -> logits of the last hidden state [B, V], for targets [B]."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(3, 4), nn.Linear(4, V)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][-1])


class Masked(nn.Module):
    """(tokens [B, T], mask [T, T]) -> logits [B, T, V] averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(V, 4), nn.Linear(4, V)

    def forward(self, given: tuple[Tensor, Tensor]) -> Tensor:
        tokens, mask = given
        hidden = self.table(tokens)
        scores = (hidden @ hidden.transpose(1, 2)).masked_fill(~mask, -1e9)
        return self.head(scores.softmax(-1) @ hidden).mean(1)


def batch(model: nn.Module) -> tuple[Any, Tensor]:
    g = torch.Generator().manual_seed(3)
    labels = torch.randint(V, (6,), generator=g)
    tokens = torch.randint(V, (6, T), generator=g)
    if isinstance(model, Flattening):
        return tokens, torch.randint(V, (6 * T,), generator=g)
    if isinstance(model, TimeFirst):
        return torch.randn(T, 6, 3, generator=g), labels
    return (tokens, torch.ones(T, T, dtype=torch.bool).tril()), labels


@pytest.mark.parametrize("first_refresh", [0, 2])
@pytest.mark.parametrize("kind", [Flattening, TimeFirst, Masked])
def test_a_batch_need_not_have_samples_first_in_every_tensor(kind: Any, first_refresh: int) -> None:
    torch.manual_seed(0)
    model = kind()
    inputs, targets = batch(model)
    optimizer = optim_core.build(
        "llqr", model, lr=0.1, first_refresh=first_refresh, loss=cross_entropy, refresh_batches=lambda i: batch(model)
    )
    closure = closure_of(optimizer, lambda: cross_entropy(model(inputs), targets))
    losses = [float(optimizer.step(closure).detach()) for _ in range(4)]
    assert optimizer.refreshes == 1
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("rows, columns", [(6, 4), (5, 9)])
def test_the_products_of_an_action_are_those_that_its_form_needs(rows: int, columns: int) -> None:
    """Q (d (Q^T G P)) P^T: two products into the basis, two out of it, 4 m n (m + n) FLOPs in all, no more."""
    from torch.utils.flop_counter import FlopCounterMode

    from optim_core.preconditioners import block

    layer = nn.Linear(columns, rows, bias=False)
    made = block("e_kronecker", layer.weight, layer, 100)
    factors = made.identity(layer.weight.detach())
    with FlopCounterMode(display=False) as counter:
        made.act(factors, torch.randn(rows, columns))
    assert counter.get_total_flops() == 4 * rows * columns * (rows + columns)
