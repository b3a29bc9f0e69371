"""Sharpness against dense float64 Hessians, and the pothole test of the two timescales."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core.diagnostics import Subject, measure, names
from optim_core.diagnostics.basis import hessian_product
from optim_core.diagnostics.escape import amplitude, escape_ratio, width
from optim_core.diagnostics.sharpness import ball_sharpness, largest_eigenvalue, trace
from optim_core.geometry import LearnedGeometry
from tests.closures import closure_of
from tests.contracts.optimizer_contract import problem


def subject(optimizer: str = "", **values: Any) -> Subject:
    model, batch = problem()
    given = {"loss": nn.functional.cross_entropy, "refresh_batches": batch} if optimizer.startswith("llqr") else {}
    built = optim_core.build(optimizer, model, **values, **given) if optimizer else None
    return Subject(model=model, loss=nn.functional.cross_entropy, batches=[batch(0), batch(1)], optimizer=built)


def dense_hessian(seen: Subject) -> Tensor:
    """Column by column, through torch.func: a path that the diagnostics do not use."""
    weights = dict(seen.model.named_parameters())
    shapes = [(k, p.shape, p.numel()) for k, p in weights.items()]

    def mean_loss(flat: Tensor) -> Tensor:
        parts = flat.split([n for _, _, n in shapes])
        named = {k: part.view(shape) for (k, shape, _), part in zip(shapes, parts, strict=True)}
        losses = [seen.loss(torch.func.functional_call(seen.model, named, (x,)), y) for x, y in seen.batches]
        return torch.stack(losses).mean()

    return torch.autograd.functional.hessian(mean_loss, torch.cat([p.detach().reshape(-1) for p in weights.values()]))


@pytest.mark.slow
def test_eigenvalue_and_trace_are_those_of_the_dense_hessian() -> None:
    seen = subject()
    params, product, dense = list(seen.model.parameters()), hessian_product(seen), dense_hessian(seen)
    value, error = largest_eigenvalue(product, params, num_steps=25)
    assert abs(value - float(torch.linalg.eigvalsh(dense)[-1])) <= max(error, 1e-10) <= 1e-6
    estimate, spread = trace(product, params, probes=400)
    assert abs(estimate - float(dense.trace())) < 4 * spread
    off = dense - torch.diag(dense.diag())
    assert spread == pytest.approx((2 * float(off.square().sum()) / 400) ** 0.5, rel=0.15)  # Hutchinson's variance


def quadratic(gradient_scale: float) -> tuple[Tensor, Tensor, Tensor, float]:
    """(A, b, w, exact rise on the ball of radius 0.7) of L(w) = w^T A w / 2 + b^T w, by the secular equation."""
    draws = torch.Generator().manual_seed(4)
    basis, _ = torch.linalg.qr(torch.randn(12, 12, generator=draws, dtype=torch.float64))
    A = basis @ torch.diag(torch.logspace(-1, 1, 12, dtype=torch.float64)) @ basis.T
    b, w = gradient_scale * torch.randn(12, generator=draws, dtype=torch.float64), torch.zeros(12, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(A)
    g = vectors.T @ b
    low, high = float(values[-1]), float(values[-1] + b.norm() / 0.7)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((g / (middle - values)).norm()) > 0.7 else (low, middle)
    e = g / (high - values)
    return A, b, w, float(0.5 * (values * e * e).sum() + (g * e).sum())


@pytest.mark.parametrize("scale", [10.0, 1.0, 0.1])
def test_the_ascent_finds_the_maximum_over_the_ball(scale: float) -> None:
    A, b, w, exact = quadratic(scale)
    w.requires_grad_()
    one, few = ball_sharpness(lambda: 0.5 * w @ A @ w + b @ w, [w], radius=0.7, num_steps=5)
    _, many = ball_sharpness(lambda: 0.5 * w @ A @ w + b @ w, [w], radius=0.7, num_steps=400)
    assert one <= few <= many <= exact * (1 + 1e-12)
    assert many == pytest.approx(exact, rel=1e-9)
    assert bool((w == 0).all())
    e = 0.7 * b / b.norm()
    assert one == pytest.approx(float(0.5 * e @ A @ e + b @ e), rel=1e-12)


def test_at_a_stationary_point_nothing_is_climbed() -> None:
    w = torch.zeros(3, requires_grad=True)
    assert ball_sharpness(lambda: w @ w, [w]) == (0.0, 0.0)


@pytest.mark.parametrize("name", ["", "sgd", "rotated_adamw"])
def test_the_diagnostic_reports_them_in_any_basis(name: str) -> None:
    seen = subject(name, **({"rotation": "global"} if name == "rotated_adamw" else {}))
    dense = dense_hessian(seen)
    before = [p.detach().clone() for p in seen.model.parameters()]
    found = measure(["sharpness"], seen)
    largest = float(torch.linalg.eigvalsh(dense)[-1])
    assert abs(found["geometry/hessian_max"] - largest) <= found["geometry/hessian_max_error"] + 1e-6 * largest
    assert abs(found["geometry/hessian_trace"] - float(dense.trace())) < 6 * found["geometry/hessian_trace_error"]
    assert 0 < found["geometry/sharpness_one_step"] <= found["geometry/sharpness_ball"]
    assert all(torch.equal(a, b) for a, b in zip(before, seen.model.parameters(), strict=True))


class Pothole(nn.Module):
    """A bowl, steep in one direction and flat in the other, with a well of `depth` and width 0.15 on the flat axis.

    L(x, y) = x^2 / 2 + 0.2 y^2 / 2 - depth exp(-y^2 / (2 width^2))
    """

    WIDTH = 0.15

    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.depth = 0.0

    def forward(self, _: Tensor) -> Tensor:
        x, y = self.at
        return 0.5 * x**2 + 0.1 * y**2 - self.depth * torch.exp(-(y**2) / (2 * self.WIDTH**2))


def excursion(name: str, sam_radius: float) -> tuple[float, dict[str, float], Tensor]:
    """(largest |y| of a run that begins in the well, escape ratios at the well's edge, diagonal of U)."""
    model = Pothole()
    given: dict[str, Any] = {"lr": 0.3, "momentum": 0.0}
    if name in ("sam", "llqr_sam"):
        given["sam_radius"] = sam_radius
    batch = torch.zeros(1), torch.zeros(1)
    loss = lambda outputs, targets: outputs  # noqa: E731
    if name.startswith("llqr"):
        given.update(
            loss=loss, refresh_batches=lambda index: batch, structure="diagonal", metric="newton", metric_scale="mean",
            refresh_interval=1, first_refresh=0, ema_rate=0.1, inner_steps=10, inner_lr=0.3, inner_momentum=0.0,
            curvature_scale=1.0, damping=0.0, inner_clip=1e3,
        )  # fmt: skip
    optimizer = optim_core.build(name, model, **given)
    draws = torch.Generator().manual_seed(0)
    closure = closure_of(optimizer, lambda: model(batch[0]))
    lr, optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"], 0.0
    for _ in range(60):  # the slow geometry is learned in the bowl, where there is no well
        with torch.no_grad():
            model.at.copy_((2 * torch.randint(2, (2,), generator=draws) - 1) * torch.tensor([1.0, 125**0.5]))
        optimizer.step(closure)
    optimizer.freeze()
    optimizer.param_groups[0]["lr"] = lr
    model.depth = 0.0225  # curvature 1 in the well, five times that of the axis outside
    with torch.no_grad():
        model.at.copy_(torch.tensor([0.0, Pothole.WIDTH]))
    slope = torch.autograd.grad(model(batch[0]), model.at)[0].detach()
    with torch.no_grad():
        model.at.copy_(torch.tensor([0.0, 0.03]))
    U = optimizer.state[model.at].get("geometry_scale", torch.ones(2, dtype=torch.float64)).clone()
    curvature = 0.2 + model.depth / Pothole.WIDTH**2
    values = {"lr": lr, "sam_radius": given.get("sam_radius", 0.0)}
    ratios = {
        "plain": escape_ratio(curvature, float(slope.norm()), **values),
        "learned": escape_ratio(float(U[1]) * curvature, float((U * slope).norm()), **values),
    }
    ratios |= measure(["escape"], Subject(model=model, loss=loss, batches=[batch], optimizer=optimizer))
    farthest = 0.0
    for _ in range(100):
        optimizer.step(closure)
        farthest = max(farthest, abs(float(model.at[1].detach())))
    return farthest, ratios, U


class Along(nn.Module):
    """A loss of one weight."""

    def __init__(self, loss: Callable[[Tensor], Tensor], start: float) -> None:
        super().__init__()
        self.loss, self.w = loss, nn.Parameter(torch.tensor([start], dtype=torch.float64))

    def forward(self, _: Tensor) -> Tensor:
        return self.loss(self.w).sum()


def descent(loss: Callable[[Tensor], Tensor], steps: int, start: float = 1e-3, **values: float) -> tuple[Any, float]:
    """What `escape` says at the start of a run of SAM, and the farthest |w| of its last 20 steps."""
    model, batch = Along(loss, start), (torch.zeros(1), torch.zeros(1))
    optimizer = optim_core.build("sam", model, **values)
    seen = Subject(model=model, loss=lambda outputs, _: outputs, batches=[batch], optimizer=optimizer)
    found = measure(["escape"], seen)
    closure = closure_of(optimizer, lambda: model(batch[0]))
    last = []
    for _ in range(steps):
        optimizer.step(closure)
        last.append(abs(float(model.w.detach())))
    return found, max(last[-20:])


@pytest.mark.slow
@pytest.mark.parametrize(
    "curvature, momentum",
    [
        *((0.3, 0.0), (2.0, 0.5), (5.0, 0.9), (0.3, 0.9)),
        *(
            pytest.param(c, m, marks=pytest.mark.long)
            for c, m in ((0.3, 0.5), (2.0, 0), (2.0, 0.9), (5.0, 0), (5.0, 0.5))
        ),
    ],
)
def test_on_a_quadratic_sam_jumps_at_its_amplitude_and_leaves_nothing(curvature: float, momentum: float) -> None:
    """The ratio is above 1 at the bottom of every quadratic; nothing ever leaves one."""
    values = {"lr": 0.2, "sam_radius": 0.1, "momentum": momentum}
    found, farthest = descent(lambda w: curvature * w**2 / 2, 1000, **values)
    size = amplitude(curvature, **values)
    back = size - 0.2 * curvature * (size + 0.1) + momentum * 2 * size  # the step from there, having come from -size
    assert back == pytest.approx(-size, rel=1e-12)
    if momentum == 0:
        assert farthest == pytest.approx(size, rel=1e-9)
    assert size * (1 - 1e-9) <= farthest < 5 * size  # with momentum the longer cycles are wider
    assert found["geometry/escape_ratio_plain"] > 1
    assert found["geometry/escape_amplitude_plain"] == pytest.approx(size, rel=1e-9)
    assert found["geometry/escape_reach_plain"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "lr, sam_radius, holds",
    [(0.5, 0.4, True), (1.0, 0.2, True), (1.0, 1.0, True), (1.5, 0.4, True), (1.5, 2.0, False), (1.5, 2.5, False)],
)
def test_a_reach_below_one_is_held_by_the_well(lr: float, sam_radius: float, holds: bool) -> None:
    """1 - cos w: curvature 1 at the bottom, inflections at pi / 2, the next well from pi on."""
    values = {"lr": lr, "sam_radius": sam_radius, "momentum": 0.0}
    found, farthest = descent(lambda w: 1 - w.cos(), 400, **values)
    assert found["geometry/escape_ratio_plain"] > 1
    assert (found["geometry/escape_reach_plain"] < 1) == holds
    if holds:
        assert farthest <= found["geometry/escape_amplitude_plain"] < math.pi / 2
    else:
        assert farthest > math.pi


def test_the_width_of_a_well_is_where_it_stops_bending_upwards() -> None:
    eps = torch.finfo(torch.float64).eps
    for unit in (0.2, 1.0, 5.0):
        assert width(lambda t: 1 - math.cos(t), unit, eps) == pytest.approx(math.pi / 2, rel=0.3)
        assert width(lambda t: t**2 if t < 0 else 1 - math.cos(t), unit, eps) == pytest.approx(math.pi / 2, rel=0.3)
        assert width(lambda t: 7 + t**2, unit, eps) == width(math.cosh, unit, eps) == math.inf
    assert width(lambda t: 1e3 + 1e-9 * t**2, 1.0, 1e-7) == math.inf  # rounding bends nothing


def test_a_step_that_diverges_by_itself_reaches_everything() -> None:
    found, _ = descent(lambda w: 4 * w**2, 1, lr=0.3, sam_radius=0.1, momentum=0.0)
    assert found["geometry/escape_reach_plain"] == 16
    assert "geometry/escape_amplitude_plain" not in found


ROTATED = ("galore", "svd", "global", "output")


@pytest.mark.parametrize("rotation", ROTATED)
@pytest.mark.parametrize("name", ["sharpness", "escape"])
def test_what_the_loss_is_does_not_depend_on_the_basis(name: str, rotation: str) -> None:
    """Also where the basis is a projection: galore saw only its subspace, and `escape` failed."""
    values = {"rotation": rotation, "rotation_rank": 2, "rotation_refresh": 1, "lr": 0.01}
    seen = subject("rotated_adamw", **{k: v for k, v in values.items() if k != "rotation_rank" or rotation == "galore"})
    x, y = seen.batches[0]

    def closure() -> Tensor:
        assert seen.optimizer is not None
        seen.optimizer.zero_grad()
        loss = seen.loss(seen.model(x), y)
        loss.backward()
        return loss

    assert seen.optimizer is not None
    for _ in range(2):
        seen.optimizer.step(closure)  # type: ignore[arg-type]
    plain = Subject(model=seen.model, loss=seen.loss, batches=seen.batches)
    if name == "escape":
        plain = Subject(
            model=seen.model, loss=seen.loss, batches=seen.batches,
            optimizer=optim_core.build("sgd", seen.model, lr=0.01, momentum=0.0),
        )  # fmt: skip
    assert measure([name], seen) == measure([name], plain)


@pytest.mark.parametrize("name", [n for n in names() if not n.endswith("_rate")])
def test_every_diagnostic_takes_a_projected_basis(name: str) -> None:
    seen = subject("rotated_adamw", rotation="galore", rotation_rank=2, lr=0.01)
    assert all(math.isfinite(v) for v in measure([name], seen).values())


@pytest.mark.slow
def test_only_sharpness_measured_in_the_slow_metric_leaves_the_pothole() -> None:
    """Spec 3.3: with the same radius and rate SGD, LLQR and SAM stay in the well, LLQR+SAM leaves it."""
    found = {name: excursion(name, 0.2) for name in ("sgd", "llqr", "sam", "llqr_sam")}
    torch.testing.assert_close(found["llqr_sam"][2], torch.tensor([1.0, 5.0], dtype=torch.float64), rtol=0.05, atol=0)
    for name in ("sgd", "llqr", "sam"):
        farthest, ratios, _ = found[name]
        assert farthest < Pothole.WIDTH / 3, name
        assert ratios["learned"] < 1, name
        assert max(v for k, v in ratios.items() if k.startswith("geometry/escape_reach")) < 0.5, name
    farthest, ratios, _ = found["llqr_sam"]
    assert farthest > Pothole.WIDTH  # past the inflection
    assert ratios["learned"] > 1 > ratios["plain"]
    assert ratios["geometry/escape_reach"] > 5
    assert ratios["geometry/escape_reach_plain"] < 0.5


def test_the_escape_diagnostic_sees_the_learned_metric() -> None:
    """Against the dense U and H; U = I before the first refresh."""
    seen = subject("llqr_sam", lr=0.1, sam_radius=0.2, refresh_interval=1, structure="psd_e_kronecker")
    first = measure(["escape"], seen)
    assert first["geometry/escape_ratio"] == pytest.approx(first["geometry/escape_ratio_plain"], rel=1e-6)
    optimizer, (x, y) = seen.optimizer, seen.batches[0]
    assert isinstance(optimizer, LearnedGeometry)
    closure = closure_of(optimizer, lambda: seen.loss(seen.model(x), y))
    for _ in range(3):
        optimizer.step(closure)
    found, dense, params = measure(["escape"], seen), dense_hessian(seen), list(seen.model.parameters())
    columns = []
    for i in range(len(dense)):
        unit = torch.zeros(len(dense), dtype=torch.float64)
        unit[i] = 1
        parts = [v.view_as(p) for v, p in zip(unit.split([p.numel() for p in params]), params, strict=True)]
        turned = optimizer.precondition(optimizer.param_groups[0], params, parts)
        columns.append(torch.cat([t.reshape(-1) for t in turned]))
    U = torch.stack(columns, 1)
    mean = torch.stack([seen.loss(seen.model(a), b) for a, b in seen.batches]).mean()
    slope = torch.cat([g.reshape(-1) for g in torch.autograd.grad(mean, params)])
    values = {"lr": 0.1, "sam_radius": 0.2, "momentum": 0.9}
    for key, matrix in (("escape_ratio", U), ("escape_ratio_plain", torch.eye(len(U), dtype=torch.float64))):
        largest = float(torch.linalg.eigvals(matrix @ dense).real.max())
        assert found[f"geometry/{key}"] == pytest.approx(
            escape_ratio(largest, float((matrix @ slope).norm()), **values), rel=1e-4
        )
