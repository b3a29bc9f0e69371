"""How parameters become pieces: units of the paper, filters, exact cutting and joining."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core.rotations import Options
from optim_core.rotations.layout import Layout, words_of
from tests.contracts.optimizer_contract import equal


class Words(nn.Module):
    """An embedding, fused attention, a perceptron, a norm and a head."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 6)
        self.attn = nn.MultiheadAttention(6, 2)
        self.fc1, self.fc2 = nn.Linear(6, 12), nn.Linear(12, 6)
        self.norm = nn.LayerNorm(6)
        self.conv = nn.Conv2d(2, 3, 3)
        self.head = nn.Linear(6, 11, bias=False)
        if tied:
            self.head.weight = self.tokens.weight


def layout(model: nn.Module, vectors: bool = True, **values: Any) -> Layout:
    named = list(model.named_parameters())
    return Layout(named, Options(**values), words_of(model), {p: {} for _, p in named}, vectors=vectors)


def test_pieces_are_the_layers_of_the_paper() -> None:
    found = {p.name: p for p in layout(Words(tied=False)).pieces}
    assert found["tokens.weight"].shape == (6, 11)  # (vocabulary, width) turned round
    assert [found[f"attn.in_proj_weight/{x}"].shape for x in "qkv"] == [(6, 6)] * 3
    assert found["conv.weight"].shape == (3, 18)
    assert found["norm.weight"].shape == (6,)
    words = {name: p.words for name, p in found.items()}
    assert "v" in words["attn.in_proj_weight/v"]
    assert "q" not in words["attn.in_proj_weight/v"]
    assert "o" in words["attn.out_proj.weight"]
    assert "mlp_in" in words["fc1.weight"]
    assert "mlp_out" in words["fc2.weight"]
    assert {"norm", "vector"} <= words["norm.weight"]
    assert {"bias", "norm"} <= words["norm.bias"]
    tied = {p.name: p.shape for p in layout(Words(tied=True)).pieces}
    assert tied["tokens.weight"] == (11, 6)
    kept = {p.name: p.shape for p in layout(Words(tied=False), embedding_transpose=False).pieces}
    assert kept["tokens.weight"] == (11, 6)


@pytest.mark.parametrize(
    "values", [{}, {"include": "v,embed"}, {"exclude": "matrix"}, {"include": "attn.*", "exclude": "k"}]
)
def test_cutting_and_joining_is_exact(values: dict[str, str]) -> None:
    model = Words(tied=False)
    cut, tensors = layout(model, **values), [torch.randn_like(p) for p in model.parameters()]
    pieces = cut.split(tensors)
    assert [tuple(t.shape) for t in pieces] == [p.shape for p in cut.pieces]
    joined = cut.join(tensors, pieces)
    assert equal(joined, tensors)
    again, originals = cut.split_rotated(joined, [tuple(t.shape) for t in pieces])
    assert equal(again, pieces)
    assert equal(cut.join(originals, again), tensors)


def test_a_filter_turns_only_what_it_names() -> None:
    model = Words(tied=False).double()
    optimizer = optim_core.build(
        "rotated_adamw", model, rotation="output", rotation_include="v, fc1.*", rotation_block=4
    )
    tensors = {p: torch.randn_like(p) for p in model.parameters()}
    there = optimizer.forward(tensors)
    moved = {name for name, p in model.named_parameters() if not torch.equal(there[p], tensors[p])}
    assert moved == {"attn.in_proj_weight", "fc1.weight"}
    fused = model.attn.in_proj_weight
    assert torch.equal(there[fused][:12], tensors[fused][:12])
    back = optimizer.backward(there)
    assert all(float((back[p] - tensors[p]).abs().max()) <= 1e-12 for p in tensors)


@pytest.mark.parametrize("kind", ["galore", "svd", "global"])
def test_a_model_with_everything_trains_in_every_layout(kind: str) -> None:
    torch.manual_seed(0)
    model = Words(tied=False)
    optimizer = optim_core.build(
        "rotated_adamw", model, lr=0.02, rotation=kind, rotation_rank=3, rotation_exclude="k,conv"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        x = model.tokens(torch.arange(8) % 11)
        x = x + model.attn(x, x, x)[0]
        x = model.norm(x + model.fc2(torch.relu(model.fc1(x))))
        loss = nn.functional.cross_entropy(model.head(x), torch.arange(1, 9) % 11)
        loss = loss + (model.conv(torch.ones(1, 2, 3, 3)) ** 2).sum()
        loss.backward()
        return loss

    losses = [float(optimizer.step(closure).detach()) for _ in range(30)]
    assert losses[-1] < 0.3 * losses[0]
