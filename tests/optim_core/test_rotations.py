"""Rotations: every kind runs the contract; Haar's law, dense references, and planted errors that the suite catches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from optim_core import rotations
from optim_core.rotations import Options, Piece
from optim_core.rotations.base import WIDEST_BLOCK
from optim_core.rotations.decompose import singular_vectors
from optim_core.rotations.haar import BlockRotation, generator, haar, normal_matrix, orthogonalized
from optim_core.rotations.learned import transported
from optim_core.rotations.rounds import dct, hadamard, inverse_dct
from tests.contracts import rotation_contract as contract

KINDS = rotations.kinds()
COMPLETE = [k for k in KINDS if rotations.lookup(k).COMPLETE]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [4, 16, 3000])
def test_orthogonal_and_back(kind: str, block: int) -> None:
    turn = contract.fitted(kind, block=block, seed=3)
    contract.check_round_trip_and_norm(turn)
    contract.check_backward_is_the_transpose(turn)
    if block == 16:
        contract.check_orthogonal(turn)


@pytest.mark.parametrize("kind", KINDS)
def test_depends_on_seed_and_names_alone(kind: str) -> None:
    contract.check_depends_on_seed_and_names_alone(kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)  # float64 is kept as float32 is
def test_resumes_at_every_phase(kind: str, dtype: torch.dtype) -> None:
    contract.check_resumes_at_every_phase(kind, dtype)


@pytest.mark.parametrize("kind", ["svd", "soap_eig"])
def test_resumes_with_moved_moments(kind: str) -> None:
    contract.check_resumes_at_every_phase(kind, torch.float32, rotation_transport="mv")


@pytest.mark.parametrize("kind", KINDS)
def test_same_trajectory_twice(kind: str) -> None:
    contract.check_same_trajectory_twice(kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMPLETE)
def test_adamw_sees_exactly_the_rotated_problem(kind: str) -> None:
    contract.check_equals_adamw_on_the_rotated_problem(kind)


@pytest.mark.parametrize("kind", ["global", "layer", "hadamard", "dct", "block_product", "givens"])
@pytest.mark.parametrize("d", [4109, 100, 1])
def test_round_trip_of_sizes_that_blocks_do_not_divide(kind: str, d: int) -> None:
    turn = rotations.lookup(kind)([Piece(name="w", shape=(d,))], Options(kind=kind, block=256))
    x = torch.randn(d, generator=generator("x", d), dtype=torch.float64)
    y = turn.forward([x])
    assert float((turn.backward(y)[0] - x).abs().max()) <= 1e-12
    assert abs(float(y[0].norm() / x.norm()) - 1) <= 1e-12


@pytest.mark.parametrize("n", [8, 64, 768])
def test_haar_is_orthogonal(n: int) -> None:
    q = haar(n, "test")
    assert float((q.T @ q - torch.eye(n, dtype=q.dtype)).abs().max()) <= 1e-13
    assert float((q.float().T @ q.float() - torch.eye(n)).abs().max()) <= 2e-6


def check_haar_law(draws: Tensor) -> None:
    """Moments of the trace and of an entry, n = 8."""
    trace = draws.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(float(trace.mean())) < 0.06
    assert abs(float((trace**2).mean()) - 1) < 0.1
    assert abs(float((trace**4).mean()) - 3) < 0.6
    assert abs(float((draws[:, 0, 0] ** 4).mean()) * 8 * 10 / 3 - 1) < 0.1


def test_haar_law_and_its_loss_without_the_sign_fix() -> None:
    normal = [normal_matrix(8, "law", i) for i in range(4000)]
    check_haar_law(torch.stack([orthogonalized(a) for a in normal]))
    with pytest.raises(AssertionError):
        check_haar_law(torch.linalg.qr(torch.stack(normal))[0])


@pytest.mark.parametrize("kind", ["output", "layer", "dct", "svd", "egop"])
def test_a_forgotten_transpose_is_caught(kind: str) -> None:
    turn = contract.fitted(kind, block=8)
    turn.backward = turn.forward  # type: ignore[method-assign]
    with pytest.raises(AssertionError):
        contract.check_round_trip_and_norm(turn)
    with pytest.raises(AssertionError):
        contract.check_backward_is_the_transpose(turn)


@pytest.mark.parametrize("kind, left, right", [("output", False, True), ("input", True, False), ("both", True, True)])
def test_sides_are_kronecker_products(kind: str, left: bool, right: bool) -> None:
    """L G K^T is (L kron K) times the row-major vector."""
    g = torch.randn(5, 7, generator=generator("g"), dtype=torch.float64)
    turn = rotations.lookup(kind)([Piece(name="w", shape=(5, 7))], Options(kind=kind, block=100))
    lhs = haar(5, "0/0", "shared") if left else torch.eye(5, dtype=g.dtype)
    rhs = haar(7, "0/0", "shared") if right else torch.eye(7, dtype=g.dtype)
    expected = torch.kron(lhs, rhs) @ g.reshape(-1)
    assert float((turn.forward([g])[0].reshape(-1) - expected).abs().max()) <= 1e-12


@pytest.mark.parametrize("shape", [(31, 7), (7, 31), (9, 9)])
def test_svd_is_diagonal_at_the_refresh(shape: tuple[int, int]) -> None:
    g = torch.randn(shape, generator=generator("g"), dtype=torch.float64)
    turn = rotations.lookup("svd")([Piece(name="w", shape=shape)], Options(kind="svd"))
    turn.fit([[g]], 1)
    h = turn.forward([g])[0]
    k = min(shape)
    assert float((h[:k, :k] - torch.diag(h.diagonal())).abs().max() / g.norm()) <= 1e-12
    assert float((h.norm() - h.diagonal().norm()).abs()) <= 1e-12 * float(g.norm())


def test_hadamard_and_dct_equal_their_matrices() -> None:
    x = torch.randn(3, 32, generator=generator("x"), dtype=torch.float64)
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / math.sqrt(2)
    dense = two
    for _ in range(4):
        dense = torch.kron(two, dense)
    assert float((hadamard(x) - x @ dense).abs().max()) <= 1e-13
    for n in (1, 2, 7, 30):
        y = torch.randn(2, n, generator=generator("y"), dtype=torch.float64)
        k, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
        cosines = torch.cos(math.pi * (2 * j + 1) * k / (2 * n)) * math.sqrt(2 / n)
        cosines[0] = math.sqrt(1 / n)
        entries, ends = list(range(0, n, 2)) + list(range(1, n, 2))[::-1], n // 2 + 1
        mixed = cosines[list(range(ends)) + list(range(ends, n))[::-1]][:, entries]
        assert float((dct(y) - y @ mixed.T).abs().max()) <= 1e-13
        assert float((inverse_dct(y) - y @ mixed).abs().max()) <= 1e-13


def test_one_round_of_hadamard_is_flat_and_two_are_nearly_normal() -> None:
    def kurtosis(rounds: int) -> float:
        turn = rotations.lookup("hadamard")(
            [Piece(name="w", shape=(4096,))], Options(block=4096, rounds=rounds, kind="hadamard")
        )
        unit = torch.zeros(4096, dtype=torch.float64)
        unit[17] = 1
        h = turn.forward([unit])[0]
        return float((h**4).mean() / (h**2).mean() ** 2)

    assert kurtosis(1) == pytest.approx(1.0, abs=1e-9)
    assert kurtosis(2) == pytest.approx(3.0, abs=0.3)


def test_angle_zero_is_the_identity_bit_for_bit() -> None:
    turn = rotations.lookup("givens")(contract.pieces(), Options(kind="givens", angle=0.0))
    x = contract.tensors()
    assert all(torch.equal(a, b) for a, b in zip(turn.forward(x), x, strict=True))


def test_soap_basis_diagonalizes_the_running_gram_matrices() -> None:
    """With one gradient again and again, power steps keep the eigenbasis: L and R stay diagonal."""
    g = torch.randn(6, 9, generator=generator("g"), dtype=torch.float64)
    piece = Piece(name="w", shape=(6, 9))
    turn = rotations.lookup("soap_eig")([piece], Options(kind="soap_eig", refresh=2))
    for step in range(1, 6):
        turn.fit([[g]], step)
    h = turn.forward([g])[0]
    gram = h @ h.T
    assert float((gram - torch.diag(gram.diagonal())).abs().max()) <= 1e-12 * float(gram.norm())
    assert float((piece.memory["rotation/gram_left"] - (1 - 0.95**5) * g @ g.T).abs().max()) <= 1e-12


def test_egop_finds_the_leading_eigenvectors() -> None:
    samples = [contract.tensors(seed=i) for i in range(6)]
    turn = contract.fitted("egop")
    fresh = rotations.lookup("egop")(contract.pieces(), Options(kind="egop", samples=6))
    assert fresh.samples_due(1) == 6
    fresh.fit(samples, 1)
    assert fresh.samples_due(2) == turn.samples_due(3) == 0
    stacked = torch.stack([s[0].reshape(-1) for s in samples], dim=1)
    rotated = torch.stack([fresh.forward(s)[0].reshape(-1) for s in samples], dim=1)
    outer = rotated @ rotated.T
    assert float((outer - torch.diag(outer.diagonal())).abs().max()) <= 1e-11 * float(outer.norm())
    values = torch.linalg.svdvals(stacked) ** 2
    assert float((outer.diagonal()[:6] - values).abs().max()) <= 1e-10 * float(values.max())


@pytest.mark.parametrize("power", [1, 2])
def test_mv_moves_moments_exactly_where_it_can(power: int) -> None:
    """A first moment moves by the change of basis; a second one too, when the change only re-orders and re-signs."""
    old = singular_vectors(contract.tensors(seed=1)[1][:5, :5].contiguous(), left=True, right=True)
    order = torch.tensor([2, 0, 1, 4, 3])
    signs = torch.tensor([1.0, -1, 1, -1, 1], dtype=torch.float64)
    new = [old[0][:, order] * signs, old[1]]
    g = torch.randn(5, 5, generator=generator("g"), dtype=torch.float64)
    change = transported((old[0], old[1]), (new[0], new[1]))
    before, after = old[0].T @ g @ old[1], new[0].T @ g @ new[1]
    left, right = (change.left, change.right) if power == 1 else (change.left_squared, change.right_squared)
    assert float((left @ before**power @ right - after**power).abs().max()) <= 1e-12


def test_soap_reorders_v_with_its_columns() -> None:
    """Where a refresh only re-orders and re-signs the bases, v = h h stays h h; the order is not its own inverse."""
    lefts, rights = torch.arange(5.0, 0, -1, dtype=torch.float64), torch.arange(4.0, 0, -1, dtype=torch.float64)
    piece = Piece(name="w", shape=(5, 4))
    turn = rotations.lookup("soap_eig")([piece], Options(kind="soap_eig"))
    old = torch.eye(5, dtype=torch.float64)[:, [1, 2, 0, 4, 3]], torch.eye(4, dtype=torch.float64)[:, [2, 0, 3, 1]]
    for key, value in (("gram_left", lefts.diag()), ("gram_right", rights.diag()), ("left", old[0]), ("right", old[1])):
        piece.put(key, value)
    g = torch.randn(5, 4, generator=generator("g"), dtype=torch.float64)
    new = turn.basis(piece, g)  # type: ignore[attr-defined]
    change = turn.follow(piece, old, new)  # type: ignore[attr-defined]
    before, after = (old[0].T @ g @ old[1]) ** 2, (new[0].T @ g @ new[1]) ** 2
    assert float((change.left_squared @ before @ change.right_squared - after).abs().max()) <= 1e-12


def failing(monkeypatch: pytest.MonkeyPatch, dtypes: Sequence[torch.dtype]) -> None:
    real = torch.linalg.svd

    def svd(a: Tensor, *args: Any, **kwargs: Any) -> Any:
        if a.dtype in dtypes:
            raise torch.linalg.LinAlgError("did not converge")
        return real(a, *args, **kwargs)

    monkeypatch.setattr(torch.linalg, "svd", svd)


def test_a_decomposition_that_fails_is_retried_in_float64_then_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    piece = Piece(name="w", shape=(4, 6))
    turn = rotations.lookup("svd")([piece], Options(kind="svd", refresh=1))
    g = torch.randn(4, 6, generator=generator("g"))
    failing(monkeypatch, [torch.float32])
    assert turn.fit([[g]], 1).failures == 0
    kept = dict(piece.memory)
    assert kept["rotation/left"].dtype == torch.float32
    failing(monkeypatch, [torch.float32, torch.float64])
    assert turn.fit([[2 * g]], 2).failures == 1
    assert all(piece.memory[k] is v for k, v in kept.items())


@pytest.mark.parametrize("kind", ["svd", "svd_left", "galore", "soap_eig", "egop"])
def test_a_gradient_that_is_not_finite_keeps_the_basis_and_is_counted(kind: str) -> None:
    turn = rotations.lookup(kind)(contract.pieces(), Options(kind=kind, samples=1, refresh=5, rank=2))
    bad = contract.tensors()
    bad[1][0, 0] = float("nan")
    assert turn.fit([bad], 1).failures == 1
    assert turn.fit([contract.tensors(1)], 2).failures == 0  # the one without a basis tries again at once
    assert any(key.startswith("rotation/") for key in turn.pieces[1].memory)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"kind": "gloabl"}, "it must be one of block_product, both"),
        ({"transport": "m"}, "m would be combined with a v of other coordinates"),
        ({"transport": "move"}, "it must be one of carry, mv"),
        ({"block": 0}, "rotation_block"),
        ({"seed": -1}, "rotation_seed"),
        ({"ema": 1.0}, "rotation_ema"),
        ({"angle": 1.0}, "rotation_angle"),
    ],
)
def test_bad_options_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**values)


def test_sizes_beyond_the_stated_memory_are_refused() -> None:
    wide = [Piece(name="w", shape=(5000, 5000))]
    for kind, way_out in (("global", "smaller rotation_block"), ("dense", "use 'global'"), ("svd", "rotation_max_dim")):
        with pytest.raises(ValueError, match=way_out):
            rotations.lookup(kind)(wide, Options(kind=kind, block=WIDEST_BLOCK + 1))
    with pytest.raises(ValueError, match="registered twice"):
        rotations.rotation("svd")(rotations.lookup("identity"))


def test_a_long_side_is_left_as_it_is() -> None:
    piece = Piece(name="embedding", shape=(50, 6))
    turn = rotations.lookup("svd")([piece], Options(kind="svd", max_dim=10))
    turn.fit([[torch.randn(50, 6, generator=generator("g"))]], 1)
    assert piece.get("left") is None
    assert piece.get("right") is not None


def test_fixed_rotations_hold_a_block_and_an_order_not_a_dense_matrix() -> None:
    turn = BlockRotation(4109, 256, key="0/0", name="w")
    other = BlockRotation(1024, 256, key="0/0", name="v")
    for x in (torch.ones(4109), torch.ones(1024)):
        (turn if len(x) == 4109 else other).forward(x)
    held = sum(t.numel() for t in (*vars(turn).values(), *vars(turn._order).values()) if isinstance(t, Tensor))
    assert held <= 256**2 + 13**2 + 2 * 4109
    assert turn._shared is other._shared


@pytest.mark.parametrize("kind, due", [("svd", [1, 3, 6, 9]), ("galore", [1, 4, 7, 10]), ("soap_eig", [1, 3, 6, 9])])
def test_refreshes_come_when_the_authors_have_them(kind: str, due: list[int]) -> None:
    piece = Piece(name="w", shape=(4, 3))
    turn = rotations.lookup(kind)([piece], Options(kind=kind, rank=2, refresh=3))
    last: Tensor | None = None
    changed = []
    for step in range(1, 12):
        turn.fit([[torch.randn(4, 3, generator=generator("w", step), dtype=torch.float64)]], step)
        key = "left" if piece.get("left") is not None else "right"
        basis = piece.get(key)
        assert basis is not None
        if last is None or not torch.equal(basis, last):
            changed.append(step)
        last = basis.clone()
    assert changed == due
