"""LLQR+SAM: every perturbation by its formula, and LLQR kinds in everyday use (spec T20 to T25, T31)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core.llqr_sam import DIRECTIONS, PERTURBATIONS
from tests.closures import closure_of
from tests.contracts.optimizer_contract import SETTINGS, Run, batches_for, check_skips_what_is_not_finite, equal
from tests.optim_core.curvature_problems import cross_entropy, flat, unflat
from tests.optim_core.test_llqr import make

RADIUS = 0.3


def test_radius_zero_refreshes_as_llqr_does_and_ema_rate_zero_not_at_all() -> None:
    runs = make("llqr_sam", sam_radius=0.0), make("llqr"), make("llqr_sam", ema_rate=0.0)
    for run in runs:
        run.steps(0, 12)
    assert [run.optimizer.refreshes for run in runs] == [4, 4, 0]
    assert runs[2].optimizer.grad_evals == 24


def test_friendly_direction_keeps_the_mean_gradient_of_friendly_sam() -> None:
    """T31."""
    values = {"sam_radius": RADIUS, "mean_decay": 0.6, "mean_weight": 0.8}
    run = make("llqr_sam", ema_rate=0.0, direction="friendly", **values)
    twin = make("friendly_sam", mean_start="zero", **values)
    run.steps(0, 10)
    twin.steps(0, 10)
    for p, q in zip(run.model.parameters(), twin.model.parameters(), strict=True):
        mean = run.optimizer.state[p]["mean_gradient"]
        torch.testing.assert_close(mean, twin.optimizer.state[q]["mean_gradient"], rtol=1e-11, atol=1e-13)


class Watched:
    """A run that is three steps old, so that U is learned, and its fourth step seen from outside."""

    def __init__(self, **values: Any) -> None:
        self.run = make("llqr_sam", **{"sam_radius": RADIUS, "momentum": 0.0, "structure": "e_kronecker", **values})
        self.run.steps(0, 4)
        self.home = self.run.weights()
        seen: list[tuple[list[Tensor], list[Tensor]]] = []
        inner = self.run.closure(4)

        def closure() -> Tensor:
            here = self.run.weights()
            loss = inner()
            seen.append((here, [p.grad.clone() for p in self.run.model.parameters() if p.grad is not None]))
            return loss

        self.mean = [s.get("mean_gradient") for s in self.run.optimizer.state.values()]
        self.mean = [m.clone() if m is not None else torch.zeros(()) for m in self.mean]
        self.run.optimizer.step(closure)
        self.seen = seen
        self.epsilon = [a - b for a, b in zip(seen[-1][0], self.home, strict=True)]
        self.step = [a - b for a, b in zip(self.run.weights(), self.home, strict=True)]

    def turn(self, vectors: list[Tensor]) -> list[Tensor]:
        """U v by the structure's own dense action."""
        optimizer, params = self.run.optimizer, list(self.run.model.parameters())
        return optimizer.precondition(optimizer.param_groups[0], params, vectors)


def norm(tensors: list[Tensor]) -> Tensor:
    return flat(tensors).norm()


@pytest.mark.slow
@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_perturbations_equal_their_formulas(kind: str) -> None:
    """Spec 3.3; one refresh for both passes; the step is U g2, or g2 under pe_vanilla."""
    watched = Watched(perturbation=kind)
    (here, g1), (_, g2) = watched.seen
    assert equal(here, watched.home)
    v, w = g1, watched.turn(g1)
    assert not torch.allclose(flat(v), flat(w))
    if kind in ("pe", "pe_vanilla"):
        expected = [RADIUS * x / norm(w) for x in w]
    elif kind == "ge":
        expected = [RADIUS * x / norm(v) for x in v]
    elif kind == "pm":
        expected = [RADIUS * x / (flat(v) @ flat(w)).sqrt() for x in w]
    else:
        expected = []
        for first in (0, 2):  # two layers, each with a weight and a bias
            vl, wl = v[first : first + 2], w[first : first + 2]
            size = norm(wl) if kind == "pel" else (flat(vl) @ flat(wl)).sqrt()
            expected += [RADIUS / 2**0.5 * x / size for x in wl]
    torch.testing.assert_close(flat(watched.epsilon), flat(expected), rtol=1e-10, atol=1e-12)
    along = g2 if kind == "pe_vanilla" else watched.turn(g2)
    torch.testing.assert_close(flat(watched.step), -0.05 * flat(along), rtol=1e-9, atol=1e-12)
    assert watched.run.calls == 10
    assert watched.run.optimizer.refreshes == 2


def test_pe_has_the_radius_as_its_length_and_pm_is_the_best_of_its_ellipsoid() -> None:
    """T23."""
    assert float(norm(Watched().epsilon)) == pytest.approx(RADIUS, rel=1e-12)
    watched = Watched(perturbation="pm")
    g, e = flat(watched.seen[0][1]), flat(watched.epsilon)
    eye = torch.eye(len(g), dtype=torch.float64)
    params = list(watched.run.model.parameters())

    def act(v: Tensor) -> Tensor:
        return flat(watched.turn(unflat(v, params)))

    U = torch.stack([act(column) for column in eye], 1)
    assert float(e @ torch.linalg.solve(U, e)) == pytest.approx(RADIUS**2, rel=1e-9)
    assert float(g @ e) == pytest.approx(RADIUS * float(g @ U @ g) ** 0.5, rel=1e-9)
    root = torch.linalg.cholesky((U + U.T) / 2)
    sphere = torch.nn.functional.normalize(torch.randn(len(g), 500, dtype=torch.float64), dim=0)
    assert float((g @ root @ sphere).max()) * RADIUS < float(g @ e)


@pytest.mark.slow
@pytest.mark.parametrize("direction", [d for d in DIRECTIONS if d not in ("gradient", "past")])
def test_directions_are_what_they_say(direction: str) -> None:
    watched = Watched(direction=direction, momentum=0.5)
    g1 = watched.seen[0][1]
    if direction == "opposite":
        v = [-g for g in g1]
    elif direction == "friendly":
        v = [g - m for g, m in zip(g1, watched.mean, strict=True)]
    elif direction == "momentum":
        twin = make("llqr_sam", direction="momentum", momentum=0.5, sam_radius=RADIUS, structure="e_kronecker")
        twin.steps(0, 4)
        v = [twin.optimizer.state[p]["momentum_buffer"] for p in twin.model.parameters()]
    else:
        again = Watched(direction=direction, momentum=0.5)
        assert equal(again.epsilon, watched.epsilon)
        assert float(norm(watched.epsilon)) == pytest.approx(RADIUS, rel=1e-12)
        return
    w = watched.turn(v)
    torch.testing.assert_close(flat(watched.epsilon), RADIUS * flat(w) / norm(w), rtol=1e-10, atol=1e-12)


def test_past_direction_takes_one_gradient_a_step() -> None:
    """First step at w; afterwards at w + epsilon along the last perturbed gradient less the mean."""
    run = make("llqr_sam", direction="past", sam_radius=RADIUS, momentum=0.0, ema_rate=0.0, mean_decay=0.5)
    assert optim_core.cost_per_step("llqr_sam", direction="past", ema_rate=0.0) == 1 == run.optimizer.next_cost()
    points: list[list[Tensor]] = []
    homes: list[list[Tensor]] = []
    grads: list[list[Tensor]] = []
    for i in range(3):
        homes.append(run.weights())
        inner = run.closure(i)

        def closure(inner: Any = inner) -> Tensor:
            points.append(run.weights())
            return inner()

        run.optimizer.step(closure)
        grads.append([p.grad.clone() for p in run.model.parameters() if p.grad is not None])
    assert run.calls == run.optimizer.grad_evals == 3
    assert equal(points[0], homes[0])
    for i, v in ((1, flat(grads[0])), (2, flat(grads[1]) - 0.5 * flat(grads[0]))):
        torch.testing.assert_close(flat(points[i]) - flat(homes[i]), RADIUS * v / v.norm(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(
            flat(homes[i]) - flat(homes[i - 1]), -0.05 * flat(grads[i - 1]), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_bit_for_bit(dtype: torch.dtype) -> None:
    """T24."""
    run = make("llqr_sam", dtype, sam_radius=0.5, lr=0.0)
    before = run.weights()
    run.steps(0, 7)
    assert equal(run.weights(), before)
    assert run.optimizer.refreshes == 3


@pytest.mark.parametrize("direction", ["gradient", "past"])
def test_batchnorm_keeps_the_statistics_of_one_pass(direction: str) -> None:
    """T25: also in a step with a refresh."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()
    plain = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()
    plain.load_state_dict(model.state_dict())
    batch = batches_for("llqr_sam")["refresh_batches"]
    optimizer = optim_core.build(
        "llqr_sam", model, sam_radius=0.5, first_refresh=0, direction=direction, loss=cross_entropy,
        refresh_batches=batch,
    )  # fmt: skip
    x, y = batch(77)
    plain(x)
    optimizer.step(closure_of(optimizer, lambda: cross_entropy(model(x), y)))
    assert optimizer.refreshes == 1
    assert equal(list(model[1].buffers()), list(plain[1].buffers()))


@pytest.mark.parametrize("direction", ["friendly", "past"])
def test_a_first_gradient_that_is_not_finite_skips_the_step(direction: str) -> None:
    """T32, second half."""
    given = {**SETTINGS["llqr_sam"], **batches_for("llqr_sam"), "direction": direction}
    check_skips_what_is_not_finite(lambda m: optim_core.build("llqr_sam", m, **given), 1)


def test_matrix_norms_need_a_positive_u() -> None:
    for kind in ("pm", "pml"):
        for structure in ("kronecker", "e_kronecker"):
            with pytest.raises(ValueError, match="does not keep positive"):
                make("llqr_sam", perturbation=kind, structure=structure, positive=False)
        for structure in ("diagonal", "scalar", "psd_kronecker", "psd_e_kronecker"):
            make("llqr_sam", perturbation=kind, structure=structure, positive=False)


@pytest.mark.parametrize(
    "values", [{"sam_radius": -0.1}, {"perturbation": "pex"}, {"direction": "up"}, {"mean_decay": 1.0}]
)
def test_bad_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        make("llqr_sam", **values)


class Language(nn.Module):
    """A tiny language model: embedding tied to its head, attention, LayerNorm, a frozen and an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.position = nn.Parameter(torch.zeros(1, 5, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.1)
        self.norm = nn.LayerNorm(8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.unused = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.table(x) + self.position
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.head(self.frozen(self.norm(h)))


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs.flatten(0, 1).float(), targets.flatten())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llqr", "llqr_sam"])
@pytest.mark.parametrize("precision", ["float32", "autocast", "bfloat16"])
def test_everyday_use(name: str, precision: str) -> None:
    """Groups without decay on norms and biases, accumulation, a scheduler, tied, frozen and unused weights, bf16."""
    torch.manual_seed(0)
    model = Language().to(torch.bfloat16 if precision == "bfloat16" else torch.float32)
    data = torch.randint(11, (64, 6), generator=torch.Generator().manual_seed(1))

    def batch(index: int) -> tuple[Tensor, Tensor]:
        rows = data[(torch.arange(16) + 8 * index) % 64]
        return rows[:, :-1], rows[:, :1].expand(-1, 5)

    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in trained if p.ndim <= 1], "structure": "diagonal"},
    ]
    optimizer = optim_core.lookup(name)(
        groups, lr=0.3, model=model, loss=token_loss, refresh_batches=batch, refresh_interval=10
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
    unused, frozen = model.unused.weight.detach().clone(), model.frozen.weight.detach().clone()

    def closure(index: int) -> Any:
        def evaluate() -> Tensor:
            optimizer.zero_grad()
            total = torch.zeros(())
            for part in (slice(0, 8), slice(8, 16)):
                x, y = (t[part] for t in batch(index))
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
                    loss = token_loss(model(x), y) / 2
                loss.backward()
                total = total + loss.detach()
            return total

        return evaluate

    losses = []
    for i in range(30):
        losses.append(float(optimizer.step(closure(i))))
        schedule.step()
    assert optimizer.refreshes == 3
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert torch.equal(model.unused.weight, unused)
    assert torch.equal(model.frozen.weight, frozen)
    factors = {k: v for k, v in optimizer.state[model.table.weight].items() if k.startswith("geometry_")}
    assert set(factors) == {"geometry_spectrum", "geometry_column_basis"}
    assert all(v.dtype == torch.float32 for v in factors.values())
    assert set(optimizer.displacement()) >= {"table.weight/spectrum", "norm.bias/scale", "position/row_basis"}


def test_batches_of_the_contract_are_their_own_stream() -> None:
    run = Run(lambda m: optim_core.build("llqr", m, **batches_for("llqr")))
    assert not torch.equal(batches_for("llqr")["refresh_batches"](0)[0], run.batch(0)[0])
