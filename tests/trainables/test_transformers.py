"""GPT and ViT: published sizes, causality, GPT-2's start, and derivatives of any order in plain attention."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from trainables.models.gpt import GPT
from trainables.models.vit import ViT
from trainables.objectives import token_loss


def small(**changes: Any) -> GPT:
    torch.manual_seed(0)
    return GPT(**{"vocabulary": 11, "block": 6, "width": 8, "depth": 2, "heads": 2, **changes}).double()


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_published_sizes() -> None:
    """GPT-2 small has 124 439 808 parameters; ViT-S/16 22 050 664, of which the class token and its place are 768."""
    with torch.device("meta"):
        assert size(GPT(50257, block=1024, width=768, depth=12, heads=12)) == 124_439_808
        assert size(ViT(1000, side=224, channels=3, patch=16, width=384, depth=12, heads=6)) == 22_050_664 - 768


def test_no_token_sees_a_later_one() -> None:
    model, tokens = small(), torch.arange(6)[None] % 11
    before = model(tokens)
    for place in range(1, 6):
        changed = tokens.clone()
        changed[0, place] = 9
        after = model(changed)
        assert torch.equal(after[0, :place], before[0, :place])
        assert not torch.equal(after[0, place], before[0, place])


@pytest.mark.parametrize("bias", [True, False])
def test_plain_attention_is_the_fused_one(bias: bool) -> None:
    tokens = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(1))
    plain, fused = small(bias=bias), small(attention="fused", bias=bias)
    assert torch.allclose(plain(tokens), fused(tokens), rtol=0, atol=1e-12)
    assert any(name.endswith("bias") for name, _ in plain.named_parameters()) is bias


def test_starts_as_gpt2() -> None:
    torch.manual_seed(0)
    model = GPT(500, block=64, width=128, depth=8, heads=4)
    for name, p in model.named_parameters():
        if "norm" in name:
            assert torch.equal(p, torch.ones_like(p) if name.endswith("weight") else torch.zeros_like(p))
        elif name.endswith("bias"):
            assert not p.any()
        else:
            into_stream = "attention.out" in name or "outward" in name
            expected = 0.02 / math.sqrt(16) if into_stream else 0.02
            assert float(p.detach().std()) == pytest.approx(expected, rel=0.03), name
    assert (
        float(token_loss(model(torch.zeros(1, 8, dtype=torch.long)), torch.ones(1, 8, dtype=torch.long)).detach()) < 7
    )


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(4, 1, 4, 4, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 1])


def vit() -> ViT:
    torch.manual_seed(0)
    return ViT(3, side=4, channels=1, patch=2, width=8, depth=1, heads=2).double()


def test_a_patch_is_a_square_of_the_image() -> None:
    """With all else equal, moving one pixel within its square changes one position of the input of the blocks."""
    model, seen = vit(), []
    model.drop.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    x, _ = images()
    model(x)
    x = x.clone()
    x[:, :, 0, 3] += 1.0
    model(x)
    changed = (seen[0] != seen[1]).any(-1)[0]
    assert changed.tolist() == [False, True, False, False]


@pytest.mark.parametrize("kind", ["gpt", "vit"])
def test_derivatives_that_curvature_needs(kind: str) -> None:
    """Forward mode and second derivatives of plain attention against central differences in float64."""
    model: nn.Module = small() if kind == "gpt" else vit()
    if kind == "gpt":
        tokens = torch.randint(11, (2, 7), generator=torch.Generator().manual_seed(3))
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
    else:
        inputs, targets = images()
    params = {name: p.detach() for name, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(4)
    v = {n: torch.randn(p.shape, generator=generator, dtype=torch.float64) for n, p in params.items()}

    def loss(p: dict[str, Tensor]) -> Tensor:
        return token_loss(functional_call(model, p, (inputs,)), targets)

    def gradient(p: dict[str, Tensor]) -> dict[str, Tensor]:
        return torch.func.grad(loss)(p)

    step = 1e-6
    up, down = ({n: p + s * v[n] for n, p in params.items()} for s in (step, -step))
    slope = jvp(loss, (params,), (v,))[1]
    assert float(slope) == pytest.approx(float(loss(up) - loss(down)) / (2 * step), rel=1e-5)
    for product in (jvp(gradient, (params,), (v,))[1], second_by_reverse(loss, params, v)):
        for name, far, near in zip(params, gradient(up).values(), gradient(down).values(), strict=True):
            expected = (far - near) / (2 * step)
            assert torch.allclose(product[name], expected, rtol=1e-5, atol=1e-9 + 1e-5 * float(expected.abs().max())), (
                name
            )


def second_by_reverse(loss: Any, params: dict[str, Tensor], v: dict[str, Tensor]) -> dict[str, Tensor]:
    leaves = {n: p.clone().requires_grad_() for n, p in params.items()}
    grads = torch.autograd.grad(loss(leaves), list(leaves.values()), create_graph=True)
    along = sum(((g * v[n]).sum() for n, g in zip(leaves, grads, strict=True)), torch.zeros((), dtype=torch.float64))
    assert isinstance(along, Tensor)
    return dict(zip(leaves, torch.autograd.grad(along, list(leaves.values())), strict=True))


def test_masked_targets_are_left_out_of_the_mean() -> None:
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, -1, 3, -100, 0], [-1, -1, 6, 2, -7]])
    kept = targets >= 0
    expected = -logits.log_softmax(-1)[kept].gather(-1, targets[kept][:, None]).mean()
    found = token_loss(logits, targets)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-14)
    found.backward()
    assert logits.grad is not None
    assert not logits.grad[~kept].any()
    assert float(token_loss(logits, torch.full((2, 5), -1)).detach()) == 0.0


@pytest.mark.parametrize("changes", [{"heads": 3}, {"attention": "flash"}])
def test_bad_shapes_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        small(**changes)
    with pytest.raises(ValueError, match="patch"):
        ViT(3, side=8, channels=1, patch=3, width=8, depth=1, heads=2)
