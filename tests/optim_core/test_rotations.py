"""Rotations and AdamW in a rotated basis: Haar law, orthogonality, equivalences, what a rotation may move."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core import rotations
from optim_core.rotations.haar import BlockRotation, generator, haar
from tests.contracts.optimizer_contract import Run, equal

KINDS = rotations.kinds()
SHAPES = [("conv.weight", (5, 3, 3, 3)), ("head.weight", (13, 29)), ("head.bias", (13,)), ("tail", (1,))]


def named(dtype: torch.dtype = torch.float64) -> list[tuple[str, Tensor]]:
    return [(name, torch.randn(shape, generator=generator(name), dtype=dtype)) for name, shape in SHAPES]


@pytest.mark.parametrize("n", [8, 64, 300])
def test_haar_is_orthogonal(n: int) -> None:
    q = haar(n, "test")
    assert float((q.T @ q - torch.eye(n, dtype=q.dtype)).abs().max()) <= 1e-13


def test_haar_law() -> None:
    """Moments of the trace and of an entry over 4000 draws, n = 8; without the sign fix the mean trace is -1.58."""
    draws = torch.stack([haar.__wrapped__(8, "law", i) for i in range(4000)])
    trace = draws.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(float(trace.mean())) < 0.06
    assert abs(float((trace**2).mean()) - 1) < 0.1
    assert abs(float((trace**4).mean()) - 3) < 0.6
    assert abs(float((draws[:, 0, 0] ** 4).mean()) * 8 * 10 / 3 - 1) < 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [4, 16, 100_000])
def test_round_trip_and_norm(kind: str, block: int) -> None:
    params = named()
    turn = rotations.lookup(kind)(params, block=block, seed=3)
    tensors = [t for _, t in params]
    there = turn.forward(tensors)
    back = turn.backward(there)
    assert [t.shape for t in there] == [t.shape for t in tensors]
    for a, b in zip(back, tensors, strict=True):
        assert float((a - b).abs().max()) <= 1e-12
    norm = [torch.cat([t.reshape(-1) for t in ts]).norm() for ts in (tensors, there)]
    assert float((norm[0] - norm[1]).abs() / norm[0]) <= 1e-12


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"identity"}))
def test_depends_on_names_and_seed_alone(kind: str) -> None:
    params = named()
    tensors = [t for _, t in params]

    def moved(seed: int) -> Tensor:
        return rotations.lookup(kind)(params, block=16, seed=seed).forward(tensors)[1]

    assert torch.equal(moved(1), moved(1))
    assert not torch.allclose(moved(1), moved(2))


@pytest.mark.parametrize("kind, left, right", [("output", False, True), ("input", True, False), ("both", True, True)])
def test_sided_kinds_are_kronecker_products(kind: str, left: bool, right: bool) -> None:
    g = torch.randn(5, 7, generator=generator("g"), dtype=torch.float64)
    turn = rotations.lookup(kind)([("w", g)], block=100, seed=0)
    lhs = haar(5, 0, "shared") if left else torch.eye(5, dtype=g.dtype)
    rhs = haar(7, 0, "shared") if right else torch.eye(7, dtype=g.dtype)
    expected = torch.kron(lhs, rhs) @ g.reshape(-1)
    assert float((turn.forward([g])[0].reshape(-1) - expected).abs().max()) <= 1e-12


def test_vectors_stay_under_sided_kinds_and_turn_under_layer_and_global() -> None:
    params = named()
    tensors = [t for _, t in params]
    for kind in KINDS:
        bias = rotations.lookup(kind)(params, block=16, seed=0).forward(tensors)[2]
        assert torch.equal(bias, tensors[2]) is (kind in ("identity", "output", "input", "both"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identity_is_torch_adamw_bit_for_bit(dtype: torch.dtype) -> None:
    ours = Run(lambda m: optim_core.build("rotated_adamw", m, lr=0.02, weight_decay=0.1), dtype)
    twin = Run(lambda m: torch.optim.AdamW(m.parameters(), lr=0.02, weight_decay=0.1, foreach=False), dtype)
    assert ours.steps(0, 200) == twin.steps(0, 200)
    assert equal(ours.weights(), twin.weights())


@pytest.mark.parametrize("kind", ["global", "layer"])
def test_adamw_sees_exactly_the_rotated_problem(kind: str) -> None:
    """AdamW on f(R^T u) from u = R w gives R w_t: the dense float64 reference."""
    run = Run(
        lambda m: optim_core.build("rotated_adamw", m, lr=0.02, weight_decay=0.0, rotation=kind, rotation_block=7)
    )
    params = list(run.model.parameters())
    turn = rotations.lookup(kind)(list(run.model.named_parameters()), block=7, seed=0)
    shapes = [torch.zeros_like(p) for p in params]
    d = sum(p.numel() for p in params)

    def flat(ts: list[Tensor]) -> Tensor:
        return torch.cat([t.reshape(-1) for t in ts])

    def unflat(v: Tensor) -> list[Tensor]:
        return [x.view_as(s) for x, s in zip(v.split([s.numel() for s in shapes]), shapes, strict=True)]

    dense = torch.stack([flat(turn.forward(unflat(e))) for e in torch.eye(d, dtype=torch.float64)], dim=1)
    u = (dense @ flat([p.detach() for p in params])).requires_grad_()
    adam = torch.optim.AdamW([u], lr=0.02, weight_decay=0.0, foreach=False)
    for i in range(50):
        x, y = run.batch(i)
        w = dict(zip([n for n, _ in run.model.named_parameters()], unflat(dense.T @ u), strict=True))
        adam.zero_grad()
        nn.functional.cross_entropy(torch.func.functional_call(run.model, w, (x,)), y).backward()
        adam.step()
        run.optimizer.step(run.closure(i))
    assert float((dense.T @ u.detach() - flat(run.weights())).abs().max()) <= 1e-10


def test_adam_is_not_equivariant() -> None:
    plain = Run(lambda m: optim_core.build("rotated_adamw", m, lr=0.02))
    turned = Run(lambda m: optim_core.build("rotated_adamw", m, lr=0.02, rotation="global"))
    plain.steps(0, 100)
    turned.steps(0, 100)
    far = sum(float(((a - b) ** 2).sum()) for a, b in zip(plain.weights(), turned.weights(), strict=True))
    assert far**0.5 / sum(float((a**2).sum()) for a in plain.weights()) ** 0.5 > 0.1


def test_a_forgotten_transpose_would_be_caught() -> None:
    """The round trip of this file fails for a backward that repeats the forward map."""
    turn = BlockRotation(16, 8, seed=0, name="w")
    x = torch.randn(16, generator=generator("x"), dtype=torch.float64)
    assert float((turn.forward(turn.forward(x)) - x).abs().max()) > 0.1


def test_fixed_rotations_hold_a_block_and_an_order_not_a_dense_matrix() -> None:
    turn = BlockRotation(4109, 256, seed=0, name="w")
    held = sum(t.numel() for t in vars(turn).values() if isinstance(t, Tensor))
    assert held <= 256**2 + 13**2 + 2 * 4109


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match="it has to be one of both, global"):
        optim_core.build("rotated_adamw", nn.Linear(2, 2), rotation="gloabl")
    with pytest.raises(ValueError, match="rotation_block"):
        optim_core.build("rotated_adamw", nn.Linear(2, 2), rotation_block=0)
    optimizer = optim_core.build("rotated_adamw", nn.Linear(2, 2))
    with pytest.raises(ValueError, match="one parameter group"):
        optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)]})
    with pytest.raises(TypeError, match="named_parameters"):
        optim_core.lookup("rotated_adamw")(nn.Linear(2, 2).parameters())
