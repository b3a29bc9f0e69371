"""What every registered rotation promises: each check takes the name of a kind, so that listing it once runs all."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import optim_core
from optim_core import rotations
from optim_core.rotations import Options, Piece, Rotation
from optim_core.rotations.haar import generator
from tests.contracts.optimizer_contract import Run, equal

SHAPES = [
    ("conv.weight", (5, 27)),
    ("head.weight", (13, 29)),
    ("tall.weight", (31, 7)),
    ("head.bias", (13,)),
    ("s", (1,)),
]


def pieces() -> list[Piece]:
    return [Piece(name=name, shape=shape) for name, shape in SHAPES]


def tensors(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(shape, generator=generator(name, seed), dtype=dtype) for name, shape in SHAPES]


def fitted(kind: str, dtype: torch.dtype = torch.float64, **values: Any) -> Rotation:
    """The kind over five pieces, having learned from two gradients (the sampled ones if it samples)."""
    found = rotations.lookup(kind)(pieces(), Options(kind=kind, rank=4, samples=6, refresh=2, **values))
    for step in (1, 2):
        count = found.samples_due(step) or 1
        found.fit([tensors(10 * step + i, dtype) for i in range(count)], step)
    return found


def flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in parts])


def dense(turn: Rotation) -> Tensor:
    """The matrix of R, column by column, in float64."""
    columns = []
    for e in torch.eye(sum(p.size for p in turn.pieces), dtype=torch.float64):
        parts = [x.view(p.shape) for x, p in zip(e.split([p.size for p in turn.pieces]), turn.pieces, strict=True)]
        columns.append(flat(turn.forward(parts)))
    return torch.stack(columns, dim=1)


def check_orthogonal(turn: Rotation) -> None:
    """R^T R = I, or R R^T = I of a kind that keeps a part of the space."""
    matrix = dense(turn)
    gram = matrix.T @ matrix if turn.COMPLETE else matrix @ matrix.T
    assert float((gram - torch.eye(len(gram), dtype=gram.dtype)).abs().max()) <= 1e-12


def check_round_trip_and_norm(turn: Rotation, tolerance: float = 1e-12) -> None:
    """backward(forward(x)) = x and |forward(x)| = |x|; forward(backward(h)) = h of an incomplete kind."""
    x = tensors(5)
    there = turn.forward(x)
    back = turn.backward(there)
    if not turn.COMPLETE:
        x, there, back = there, turn.forward(back), turn.forward(turn.backward(turn.forward(back)))
    assert [t.shape for t in back] == [t.shape for t in x]
    assert float((flat(back) - flat(x)).abs().max()) <= tolerance
    assert abs(float(flat(there).norm() / flat(x).norm()) - 1) <= tolerance


def check_backward_is_the_transpose(turn: Rotation) -> None:
    """<R x, y> = <x, R^T y> for random x, y."""
    x = tensors(6)
    h = turn.forward(x)
    y = [torch.randn(t.shape, generator=generator("y", i), dtype=t.dtype) for i, t in enumerate(h)]
    assert abs(float(flat(h) @ flat(y) - flat(x) @ flat(turn.backward(y)))) <= 1e-11


def check_depends_on_seed_and_names_alone(kind: str) -> None:
    """The same twice, whatever torch's generator has drawn, the default dtype and device, and the given dtype."""
    first = flat(fitted(kind, seed=3, block=8).forward(tensors(7)))
    torch.manual_seed(123)
    torch.rand(17)
    assert torch.equal(flat(fitted(kind, seed=3, block=8).forward(tensors(7))), first)
    with torch.device("meta"):  # a rotation is drawn on the CPU, whatever the device of the weights
        elsewhere = rotations.lookup(kind)(pieces(), Options(kind=kind, seed=3, block=8))
    if not elsewhere.samples_due(1):
        elsewhere.fit([tensors(11)], 1)
        again = rotations.lookup(kind)(pieces(), Options(kind=kind, seed=3, block=8))
        again.fit([tensors(11)], 1)
        assert torch.equal(flat(elsewhere.forward(tensors(7))), flat(again.forward(tensors(7))))


def make(kind: str, **values: Any) -> Callable[[nn.Module], Any]:
    settings = {"rotation_block": 7, "rotation_refresh": 3, "rotation_rank": 2, "rotation_samples": 4, **values}
    return lambda model: optim_core.build("rotated_adamw", model, lr=0.03, rotation=kind, **settings)


def check_resumes_at_every_phase(kind: str, dtype: torch.dtype, **values: Any) -> None:
    """Saved after step 1, 2, 3, 4 (a refresh happens at 1, 3, 6) and loaded with `weights_only`: bit for bit."""
    whole = Run(make(kind, **values), dtype)
    saved = []
    for i in range(5):
        whole.steps(i, i + 1)
        buffer = io.BytesIO()
        torch.save({"m": whole.model.state_dict(), "o": whole.optimizer.state_dict()}, buffer)
        saved.append(buffer.getvalue())
    losses = whole.steps(5, 7)
    for at in range(1, 5):
        again = Run(make(kind, **values), dtype)
        state = torch.load(io.BytesIO(saved[at - 1]), weights_only=True)
        again.model.load_state_dict(state["m"])
        again.optimizer.load_state_dict(state["o"])
        assert again.steps(at, 7)[5 - at :] == losses
        assert equal(again.weights(), whole.weights())
        assert again.optimizer.grad_evals == whole.optimizer.grad_evals
        assert again.optimizer.refresh_failures == whole.optimizer.refresh_failures


def check_same_trajectory_twice(kind: str) -> None:
    first, second = Run(make(kind)), Run(make(kind))
    assert first.steps(0, 8) == second.steps(0, 8)
    assert equal(first.weights(), second.weights())


def rotation_matrix(run: Run) -> Tensor:
    """R of the run's optimizer over all its parameters, column by column."""
    params = list(run.model.parameters())
    columns = []
    for e in torch.eye(sum(p.numel() for p in params), dtype=torch.float64):
        parts = [x.view_as(p) for x, p in zip(e.split([p.numel() for p in params]), params, strict=True)]
        found = run.optimizer.forward(dict(zip(params, parts, strict=True)))
        columns.append(flat([found[p] for p in params]))
    return torch.stack(columns, dim=1)


def check_equals_adamw_on_the_rotated_problem(kind: str) -> None:
    """AdamW on f(R^T u) from u = R w gives R w_t, with R dense in float64, as long as the basis stays.

    The first gradient of a kind that learns after the step makes the basis and moves nothing.
    """
    values = {"weight_decay": 0.1, "rotation_refresh": 1000, "eps": 1e-3}  # noise of an exact zero stays noise
    run, start = Run(make(kind, **values)), Run(make(kind, **values))
    sizes = [p.numel() for p in start.model.parameters()]
    run.steps(0, 1)
    matrix = rotation_matrix(run)
    u = (matrix @ flat(start.weights())).requires_grad_()
    adam = torch.optim.AdamW([u], lr=0.03, weight_decay=0.1, eps=1e-3, foreach=False)
    run.steps(1, 30)
    skipped = rotations.lookup(kind)([], Options(kind=kind)).fits_after
    for i in range(int(skipped), 30):
        x, y = run.batch(i)
        parts = torch.split(matrix.T @ u, sizes)
        named = zip(start.model.named_parameters(), parts, strict=True)
        w = {name: part.view_as(p) for (name, p), part in named}
        adam.zero_grad()
        nn.functional.cross_entropy(torch.func.functional_call(start.model, w, (x,)), y).backward()
        adam.step()
    assert float((matrix.T @ u.detach() - flat(run.weights())).abs().max()) <= 1e-10
