"""Optimizers in rotated bases at the edges: odd parameters, copies, late groups, gradients that are missing."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core import rotations
from tests.closures import closure_of
from tests.contracts.layout_contract import by_pickle
from tests.contracts.optimizer_contract import equal

KINDS = rotations.kinds()
SMALL = {"rotation_block": 3, "rotation_samples": 2, "rotation_refresh": 2, "rotation_rank": 2}


class Bowl(nn.Module):
    """Parameters of any shapes; the loss is half the squared norm of those that are used."""

    def __init__(self, **parameters: Tensor) -> None:
        super().__init__()
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(value))
        self.used = list(parameters)

    def train_with(self, optimizer: Any, steps: int) -> None:
        closure = closure_of(
            optimizer, lambda: torch.stack([(getattr(self, name) ** 2).sum() for name in self.used]).sum() / 2
        )
        for _ in range(steps):
            optimizer.step(closure)


def matrices(seed: int = 0) -> Bowl:
    draws = torch.Generator().manual_seed(seed)
    return Bowl(first=torch.randn(4, 5, generator=draws), second=torch.randn(5, 3, generator=draws), bias=torch.ones(3))


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("kind", KINDS)
def test_scalars_vectors_and_empty_tensors_train(kind: str) -> None:
    model = Bowl(
        scalar=torch.tensor(2.0),
        vector=torch.ones(3),
        matrix=torch.ones(4, 5),
        no_rows=torch.zeros(0, 4),
        nothing=torch.zeros(0),
        no_columns=torch.zeros(3, 0),
    )
    optimizer = optim_core.build("rotated_adamw", model, lr=0.01, rotation=kind, **SMALL)
    before = sum(float((p.detach() ** 2).sum()) for p in model.parameters())
    model.train_with(optimizer, 4)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    model.train_with(optimizer, 4)
    assert sum(float((p.detach() ** 2).sum()) for p in model.parameters()) < before


@pytest.mark.parametrize("name", ["rotated(adamw)", "rotated(sgd)", "rotated(torch.optim.RMSprop)"])
@pytest.mark.parametrize("kind", ["svd", "soap_eig"])
def test_a_scalar_trains_beside_matrices_whose_moments_move(name: str, kind: str) -> None:
    """The base's counter of steps has the shape of the scalar, and is no moment."""
    model = Bowl(scale=torch.tensor(2.0), matrix=torch.ones(4, 5))
    model.train_with(
        optim_core.build(name, model, lr=0.05, rotation=kind, rotation_refresh=2, rotation_transport="mv"), 7
    )
    assert float(model.scale.detach()) < 2 - 0.05


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("name", ["rotated_adamw", "rotated(sgd)"])
def test_sampled_gradients_do_not_replace_that_of_the_step(name: str, set_to_none: bool) -> None:
    """Also when the closure zeroes and refills the same tensors: egop's first step goes along the gradient at w."""
    model = matrices().double()
    home = weights(model)
    optimizer = optim_core.build(name, model, lr=0.05, rotation="egop", rotation_samples=3)

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=set_to_none)
        loss = torch.stack([(p**4).sum() for p in model.parameters()]).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    for p, w in zip(model.parameters(), home, strict=True):
        assert torch.equal(p.grad, 4 * w**3)
        if name == "rotated(sgd)":
            torch.testing.assert_close(p.detach(), w - 0.05 * 4 * w**3)


@pytest.mark.slow
@pytest.mark.parametrize("reduced", ["medium", "autocast", "newer"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_keeps_float32_whatever_products_the_user_asked_for(kind: str, reduced: str) -> None:
    draws = torch.Generator().manual_seed(4)
    model = Bowl(first=torch.randn(48, 40, generator=draws), second=torch.randn(32, 40, generator=draws))
    optimizer = optim_core.build("rotated_adamw", model, rotation=kind, **{**SMALL, "rotation_block": 64})
    model.train_with(optimizer, 2)
    x = {p: p.detach().clone() for p in model.parameters()}
    if kind == "galore":
        x = optimizer.backward(optimizer.forward(x))  # what lies in the part of the space that it keeps
    matmul = torch.backends.mkldnn.matmul
    try:
        if reduced == "medium":
            torch.set_float32_matmul_precision("medium")
        elif reduced == "newer":
            matmul.fp32_precision = "bf16"
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced == "autocast"):
            back = optimizer.backward(optimizer.forward(x))
        assert torch.get_float32_matmul_precision() == "medium" if reduced == "medium" else True
        assert matmul.fp32_precision == "bf16" if reduced == "newer" else True
    finally:
        matmul.fp32_precision = "none"
        torch.set_float32_matmul_precision("highest")
    assert max(float((back[p] - x[p]).abs().max()) for p in x) <= 2e-5


@pytest.mark.parametrize("copied", [copy.deepcopy, by_pickle])
@pytest.mark.parametrize("name", ["rotated_adamw", "rotated(sgd)"])
@pytest.mark.parametrize("kind", ["global", "svd", "egop"])
def test_a_copy_goes_on_where_the_original_was(name: str, kind: str, copied: Any) -> None:
    model = matrices()
    optimizer = optim_core.build(name, model, lr=0.05, rotation=kind, **SMALL)
    model.train_with(optimizer, 3)
    twin, other = copied((model, optimizer))
    model.train_with(optimizer, 4)
    assert not equal(weights(twin), weights(model))
    twin.train_with(other, 4)
    assert equal(weights(twin), weights(model))
    assert other.grad_evals == optimizer.grad_evals


@pytest.mark.parametrize(
    "later, message",
    [
        ({"rotation_include": "nope"}, "'nope' matches no parameter"),
        ({"rotation_transport": "m"}, "reordered and change sign"),
        ({"rotation": "gloabl"}, "it must be one of"),
        ({"rotation": "global"}, "mixes tensors"),
    ],
)
def test_a_later_group_that_is_refused_leaves_the_optimizer_as_it_was(later: dict[str, Any], message: str) -> None:
    model, twin = matrices(), matrices()
    pair = [optim_core.lookup("rotated_adamw")([("first", m.first)], rotation="svd", lr=0.1) for m in (model, twin)]
    with pytest.raises(ValueError, match=message):
        pair[0].add_param_group({"params": [("second", model.second)], **later})
    for optimizer, m in zip(pair, (model, twin), strict=True):
        optimizer.add_param_group({"params": [("second", m.second)], "rotation": "output"})
        m.train_with(optimizer, 3)
    assert equal(weights(model), weights(twin))


def test_a_group_that_comes_after_steps_trains_and_resumes() -> None:
    def grown(m: Bowl, steps: int) -> Any:
        optimizer = optim_core.lookup("rotated_adamw")([("first", m.first)], rotation="svd", lr=0.1)
        m.train_with(optimizer, steps)
        optimizer.add_param_group({"params": [("second", m.second)], "rotation": "egop", "rotation_samples": 2})
        return optimizer

    model = matrices()
    optimizer = grown(model, 2)
    assert optimizer.next_cost() == 3
    model.train_with(optimizer, 2)
    twin = copy.deepcopy(model)
    resumed = grown(twin, 0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    model.train_with(optimizer, 3)
    twin.train_with(resumed, 3)
    assert equal(weights(twin), weights(model))


@pytest.mark.parametrize("name", ["rotated_adamw", "rotated(sgd)"])
def test_a_mixing_rotation_resumes_when_a_part_of_the_model_never_trains(name: str) -> None:
    def build(m: nn.Module) -> Any:
        return optim_core.build(name, m, lr=0.05, rotation="global", **SMALL)

    model = matrices()
    model.used = ["first", "bias"]
    optimizer = build(model)
    model.train_with(optimizer, 2)
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    twin = copy.deepcopy(model)
    resumed = build(twin)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    model.train_with(optimizer, 3)
    twin.train_with(resumed, 3)
    assert equal(weights(twin), weights(model))
    twin.used.append("second")
    if name == "rotated_adamw":  # plain SGD has no state that would tell who trained before the save
        resumed.load_state_dict(copy.deepcopy(resumed.state_dict()))
    with pytest.raises(RuntimeError, match="another set of parameters"):
        twin.train_with(resumed, 1)


@pytest.mark.parametrize("kind", ["layer", "output", "global"])
def test_the_order_in_memory_does_not_matter(kind: str) -> None:
    """Weights, and with them gradients, stored column by column: the same run, also of what is not rotated."""

    def final(stored: Sequence[bool]) -> list[Tensor]:
        model = Bowl(
            **{
                name: (value.T.contiguous().T if turned else value)
                for (name, value), turned in zip(list(matrices(3).double().named_parameters())[:2], stored, strict=True)
            }
        )
        optimizer = optim_core.build(
            "rotated_adamw", model, lr=0.05, rotation=kind, rotation_exclude="second", rotation_block=4
        )
        model.train_with(optimizer, 5)
        assert model.second.is_contiguous() != stored[1]
        return weights(model)

    plain, turned = final([False, False]), final([True, True])
    assert max(float((a - b).abs().max()) for a, b in zip(plain, turned, strict=True)) <= 1e-14


def test_a_gradient_that_comes_in_another_order_in_memory_is_the_same_gradient() -> None:
    def final(turned: bool) -> list[Tensor]:
        model = matrices(3).double()
        optimizer = optim_core.build("rotated_adamw", model, lr=0.05, rotation="output", rotation_exclude="second")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = torch.stack([(p**2).sum() for p in model.parameters()]).sum() / 2
            loss.backward()
            if turned and optimizer.grad_evals % 2:
                model.second.grad = model.second.grad.T.contiguous().T
            return loss

        for _ in range(4):
            optimizer.step(closure)
        return weights(model)

    assert equal(final(True), final(False))


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "identity"])
def test_no_moment_is_kept_in_bfloat16_rotated_or_not(kind: str) -> None:
    model = matrices().to(torch.bfloat16)
    optimizer = optim_core.build("rotated_adamw", model, rotation=kind, rotation_exclude="second", **SMALL)
    model.train_with(optimizer, 2)
    assert {optimizer.state[p]["exp_avg_sq"].dtype for p in model.parameters()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_sparse_gradients_and_complex_parameters_are_refused_by_name() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = optim_core.build("rotated_adamw", table, rotation="svd")

    home = table.weight.detach().clone()
    with pytest.raises(RuntimeError, match="gradient of weight is sparse"):
        optimizer.step(closure_of(optimizer, lambda: table(torch.tensor([1, 2])).sum()))
    assert torch.equal(table.weight, home)
    for name in ("rotated_adamw", "rotated(sgd)"):
        with pytest.raises(TypeError, match="wave is complex"):
            optim_core.build(name, Bowl(wave=torch.ones(2, 2, dtype=torch.complex64)), rotation="layer")


def test_fused_weights_are_cut_along_the_out_axis_or_not_at_all() -> None:
    def pieces(weight: Tensor, name: str = "c_attn") -> list[tuple[int, ...]]:
        model = nn.ModuleDict({name: Bowl(weight=weight)})
        space = optim_core.build("rotated_adamw", model, rotation="output")._spaces[0]  # type: ignore[attr-defined]
        return [p.shape for p in space.layout.pieces]

    assert pieces(torch.ones(18, 6)) == [(6, 6)] * 3
    assert pieces(torch.ones(9, 5), "to_qkv") == [(3, 5)] * 3
    assert pieces(torch.ones(6, 18)) == [(6, 18)]  # stored (in, 3 out): a third of its rows is no query
    assert pieces(torch.ones(7, 4)) == [(7, 4)]
