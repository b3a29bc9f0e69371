"""LLQR: its limits, the exact step, what a refresh leaves alone, resuming, budgets, refusals (spec T12, T18-T32)."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core.preconditioners import Factors, Structure, structure, structures
from optim_core.preconditioners.base import _STRUCTURES
from optim_core.undisturbed import undisturbed
from tests.closures import closure_of
from tests.contracts.optimizer_contract import Run, batches_for, begin, equal
from tests.optim_core.curvature_problems import cross_entropy, dense, flat, residual, unflat
from tests.optim_core.test_contract import maker


def make(name: str = "llqr", dtype: torch.dtype = torch.float64, **values: Any) -> Run:
    """A run on the contract's problem, refreshing every third step unless told otherwise."""
    more = {**batches_for(name, dtype), "lr": 0.05}
    more |= {"refresh_interval": 3} if more.keys() & {"refresh_batches"} else {}
    return Run(lambda m: optim_core.build(name, m, **{**more, **values}), dtype)


def test_ema_rate_zero_charges_no_refresh() -> None:
    run = make(ema_rate=0.0)
    run.steps(0, 20)
    assert run.optimizer.grad_evals == 20


@pytest.mark.parametrize("kind", [s for s in structures() if not s.startswith("psd_")])
def test_u_held_at_the_identity_is_the_base_optimizer_bit_for_bit(kind: str) -> None:
    """T19, with the factors there and acting."""
    run, twin = make(structure=kind, weight_decay=0.01), make("sgd", weight_decay=0.01)
    run.optimizer.freeze()
    group = run.optimizer.param_groups[0]
    for p in group["params"]:
        for key, f in run.optimizer._block(p, group).identity(p.detach()).items():
            run.optimizer.state[p]["geometry_" + key] = f
    assert run.steps(0, 10) == twin.steps(0, 10)
    assert equal(run.weights(), twin.weights())


@pytest.fixture
def exact_structure() -> Any:
    """Block-dense U = I + (-u* - g) g^T / |g|^2, the least change from the identity that gives the exact step."""

    @structure("dense_for_this_test")
    class Dense(Structure):
        VECTOR = "dense_for_this_test"

        def identity(self, like: Tensor) -> Factors:
            return {"matrix": torch.eye(like.numel(), dtype=like.dtype)}

        def act(self, factors: Factors, gradient: Tensor) -> Tensor:
            return (factors["matrix"] @ gradient.flatten()).reshape(gradient.shape)

    yield Dense
    del _STRUCTURES._things["dense_for_this_test"]


def test_solved_inner_problem_gives_the_exact_damped_step(exact_structure: Any) -> None:
    """T18: an outer SGD step with lr 1 is -(H + damping)^-1 g."""
    run = make(structure="dense_for_this_test", lr=1.0, momentum=0.0)
    x, y = run.batch(0)
    g, H = dense(run.model, x, cross_entropy, y, "gauss_newton")
    best = -torch.linalg.solve(H + 0.1 * torch.eye(len(g), dtype=torch.float64), g)
    params = list(run.model.parameters())
    for p, u, gi in zip(params, unflat(best, params), unflat(g, params), strict=True):
        change = torch.outer((-u - gi).flatten(), gi.flatten()) / gi.square().sum()
        run.optimizer.state[p]["geometry_matrix"] = torch.eye(p.numel(), dtype=torch.float64) + change
    run.optimizer.freeze()
    before = flat(run.weights())
    run.steps(0, 1)
    assert float((flat(run.weights()) - before - best).norm() / best.norm()) <= 1e-10


METRICS = [{"metric_scale": "mean"}, {"metric_scale": "sum"}, {"metric_scale": "normalised"}, {"metric": "newton"}]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, kind, values",
    [
        (("llqr", "llqr_sam")[column // 2], kind, values)  # they differ in the steps between two refreshes
        for row, kind in enumerate(("diagonal", "kronecker", "e_kronecker"))
        for column, values in enumerate(METRICS)
        if (row + column) % 2 == 0
    ],
)
def test_every_refresh_of_a_run_lowers_its_objective(name: str, kind: str, values: dict[str, Any]) -> None:
    """T12, with the published inner loop: 50 steps, rate 1e-3, momentum 0.9, average 0.05, every 20 of 100 steps."""
    run = make(
        name, structure=kind, refresh_interval=20, inner_steps=50, ema_rate=0.05, curvature_scale=1.0,
        first_refresh_full=False, decrease_check=False, **values,
    )  # fmt: skip
    seen = []
    for i in range(0, 100, 20):
        run.steps(i, i + 1)
        seen.append(run.optimizer.last_objective)
        run.steps(i + 1, i + 20)
    assert all(after < before for before, after in seen)
    assert run.optimizer.refreshes == 5


@pytest.mark.parametrize("name", ["llqr", "llqr_sam"])
def test_a_refresh_touches_nothing_but_u(name: str) -> None:
    """T28: weights, gradients, BatchNorm buffers, random state, base buffers and modes, bit for bit."""
    model, x, y = residual()
    model.train()
    optimizer = optim_core.build(
        name, model, lr=0.05, loss=cross_entropy, refresh_interval=2, refresh_batches=lambda i: (torch.randn_like(x), y)
    )
    optimizer.step(closure_of(optimizer, lambda: cross_entropy(model(x), y)))

    def everything() -> list[Tensor]:
        held = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)]
        held += [v for s in optimizer.state.values() for k, v in s.items() if not k.startswith("geometry_")]
        return [t.detach().clone() for t in (*held, torch.get_rng_state())]

    before, grads = everything(), [p.grad for p in model.parameters()]
    with torch.no_grad(), undisturbed(model):
        optimizer._refresh()
    assert optimizer.refreshes == 1
    assert equal(everything(), before)
    assert all(a is b for a, b in zip(grads, (p.grad for p in model.parameters()), strict=True))
    assert all(m.training for m in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llqr", "llqr_sam"])
@pytest.mark.parametrize("at", [2, 5])
@pytest.mark.parametrize("values", [{"structure": "kronecker"}, {"base": "adamw", "n_grads": 2}])
def test_resumes_within_an_interval_bit_for_bit(name: str, at: int, values: dict[str, Any]) -> None:
    """T29; the counters go with the state."""
    whole = make(name, **values)
    whole.steps(0, at)
    buffer = io.BytesIO()
    torch.save({"model": whole.model.state_dict(), "optimizer": whole.optimizer.state_dict()}, buffer)
    saved = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    again = make(name, **values)
    again.model.load_state_dict(saved["model"])
    again.optimizer.load_state_dict(saved["optimizer"])
    assert again.steps(at, 9) == whole.steps(at, 9)
    assert equal(again.weights(), whole.weights())
    assert again.optimizer.refreshes == whole.optimizer.refreshes == 3
    assert again.optimizer.param_groups[0]["drawn"] == 3 * values.get("n_grads", 1)


def test_average_is_of_the_stated_share() -> None:
    """U <- (1 - ema_rate) U + ema_rate U_new, warm start and full first refresh."""
    values = {"structure": "diagonal", "lr": 0.0}
    full, slow = make(first_refresh_full=True, **values), make(first_refresh_full=False, ema_rate=0.25, **values)
    full.steps(0, 1)
    slow.steps(0, 1)
    for a, b in zip(full.model.parameters(), slow.model.parameters(), strict=True):
        whole, part = full.optimizer.state[a]["geometry_scale"], slow.optimizer.state[b]["geometry_scale"]
        torch.testing.assert_close(part, 0.75 + 0.25 * whole, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(whole, torch.ones_like(whole))


def test_diagonals_stay_within_floor_and_ceiling() -> None:
    run = make(structure="diagonal", inner_lr=1.0, floor=0.5, ceiling=1.1, curvature_scale=1.0, decrease_check=False)
    run.steps(0, 7)
    held = torch.cat([s["geometry_scale"].flatten() for s in run.optimizer.state.values()])
    assert float(held.min()) == 0.5
    assert float(held.max()) == 1.1


def test_a_refresh_that_does_not_lower_the_objective_is_discarded() -> None:
    wild, checked = make(inner_lr=100.0, decrease_check=False), make(inner_lr=100.0)
    wild.steps(0, 1)
    checked.steps(0, 1)
    before, after = checked.optimizer.last_objective
    assert not after < before
    assert (wild.optimizer.refreshes, checked.optimizer.refreshes) == (1, 0)
    assert checked.optimizer.discarded_refreshes == 1
    assert checked.optimizer.displacement() == {}


def test_a_batch_that_is_not_finite_leaves_u_finite() -> None:
    """T32: with the check it is discarded, without it the published replacement keeps U finite."""
    for check in (True, False):
        run = make(decrease_check=check)
        run.steps(0, 3)
        batch = run.optimizer._batches.given

        def broken(i: int, batch: Any = batch) -> Any:
            x, y = batch(i)
            return x * float("nan"), y

        run.optimizer._batches.given = broken
        run.steps(3, 5)
        held = [v for s in run.optimizer.state.values() for k, v in s.items() if k.startswith("geometry_")]
        assert all(bool(v.isfinite().all()) for v in held)
        assert run.optimizer.discarded_refreshes == int(check)


def test_counts_refreshes_and_stops_when_frozen() -> None:
    """1.75 (T + 1) + 2.75 for a refresh; the plan's average agrees with what is spent."""
    run = make(refresh_interval=4, inner_steps=6)
    for i in range(8):
        due = i % 4 == 0
        assert run.optimizer.next_cost() == 1 + (1.75 * 7 + 2.75 if due else 0)
        run.steps(i, i + 1)
    assert run.optimizer.grad_evals == 8 + 2 * 15
    assert 8 * optim_core.cost_per_step("llqr", refresh_interval=4, inner_steps=6, lr=0.1) == 8 + 2 * 15
    run.optimizer.freeze()
    assert run.optimizer.next_cost() == 1
    run.steps(8, 10)
    assert run.optimizer.grad_evals == 10 + 2 * 15
    assert optim_core.cost_per_step("llqr", ema_rate=0.0) == 1
    assert optim_core.cost_per_step("llqr_sam", preset="code") == 2 + (1 + 1.75 * 51) / 1000
    assert optim_core.cost_per_step("llqr_sam", preset="paper", metric="newton") == 2 + (1 + 2 * 26) / 500


@pytest.mark.parametrize(
    "interval, first, budget", [(10, 0, 87.0), (10, 0, 86.9), (10, 7, 60.0), (4, 0, 21.0), (1, 0, 99)]
)
def test_the_plan_knows_the_steps_of_a_budget(interval: int, first: int, budget: float) -> None:
    """Stepping until nothing fits, as a trial does; interval 10 and 21 steps are three refreshes, 21 + 3 * 22."""
    values = {"refresh_interval": interval, "first_refresh": first}
    run, steps = make(**values), 0
    while True:
        if run.optimizer.next_cost() > budget - run.optimizer.grad_evals:
            run.optimizer.freeze()
        if run.optimizer.next_cost() > budget - run.optimizer.grad_evals:
            break
        run.steps(steps, steps + 1)
        steps += 1
    assert optim_core.steps_within("llqr", budget, **values) == steps
    assert optim_core.steps_within("llqr", 87.0, refresh_interval=10) == 21
    assert optim_core.steps_within("llqr", 87.0 + 32 * 10**9, refresh_interval=10) == 21 + 10 * 10**9  # in no time
    assert optim_core.steps_within("sam", 87.0) == 43


def test_presets_are_the_published_ones_and_can_be_overridden() -> None:
    code = make(preset="code", refresh_interval=7).optimizer.param_groups[0]
    wanted = {"structure": "diagonal", "inner_steps": 50, "inner_lr": 1e-3, "inner_clip": 5.0, "damping": 0.0}
    assert {k: code[k] for k in wanted} == wanted
    assert (code["metric_scale"], code["ema_rate"], code["refresh_interval"]) == ("sum", 0.05, 7)
    paper = make(preset="paper", metric="newton", refresh_interval=None).optimizer.param_groups[0]
    wanted = {"structure": "e_kronecker", "inner_steps": 25, "inner_lr": 5e-3, "refresh_interval": 500}
    assert {k: paper[k] for k in wanted} == wanted
    assert (paper["metric_scale"], paper["ema_rate"], paper["floor"]) == ("mean", 0.1, 1e-8)


def test_first_refresh_waits_for_running_statistics() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    more = {**batches_for("llqr", torch.float32), "refresh_interval": 50}
    assert optim_core.build("llqr", model, **more)._first_refresh() == 20
    assert optim_core.build("llqr", model, **{**more, "refresh_interval": 10})._first_refresh() == 10
    assert optim_core.build("llqr", model, **more, first_refresh=0)._first_refresh() == 0
    assert make().optimizer._first_refresh() == 0


def test_update_is_preconditioned_with_decay_outside() -> None:
    """apply_to update: w <- (1 - lr wd) w + U d with d the plain step of AdamW."""
    run = make(base="adamw", apply_to="update", weight_decay=0.1, structure="e_kronecker")
    twin = make("adamw", weight_decay=0.0)
    before = run.weights()
    run.steps(0, 1)
    twin.steps(0, 1)
    for p, old, plain in zip(run.model.parameters(), before, twin.weights(), strict=True):
        made = run.optimizer._block(p, run.optimizer.param_groups[0])
        expected = (1 - 0.05 * 0.1) * old + made.act(run.optimizer._factors(p), plain - old)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-10, atol=1e-12)


def test_update_has_decoupled_decay_from_the_first_step() -> None:
    run, twin = make(apply_to="update", weight_decay=0.1, first_refresh=100), make("sgd")
    before = twin.weights()
    run.steps(0, 1)
    twin.steps(0, 1)
    expected = flat(twin.weights()) - 0.05 * 0.1 * flat(before)
    torch.testing.assert_close(flat(run.weights()), expected, rtol=1e-12, atol=1e-14)


def test_loading_brings_the_structure_along() -> None:
    saved, other = make(structure="kronecker"), make(structure="diagonal")
    saved.steps(0, 4)
    other.steps(0, 1)
    other.model.load_state_dict(saved.model.state_dict())
    other.optimizer.load_state_dict(copy.deepcopy(saved.optimizer.state_dict()))
    assert other.steps(4, 9) == saved.steps(4, 9)


def test_iterables_serve_as_refresh_batches() -> None:
    """The same batches in turn as by index; a list is begun again, a spent iterator is refused."""
    by_index, problem = make(), batches_for("llqr")["refresh_batches"]
    by_list = make(refresh_batches=[problem(i) for i in range(10)])
    assert by_index.steps(0, 9) == by_list.steps(0, 9)
    make(refresh_batches=[problem(0)]).steps(0, 9)
    spent = make(refresh_batches=iter([problem(0)]))
    with pytest.raises(RuntimeError, match="exhausted"):
        spent.steps(0, 9)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"structure": "kroneker"}, "structure is 'kroneker'"),
        ({"refresh_interval": 0}, "refresh_interval is 0"),
        ({"ema_rate": 1.5}, "ema_rate is 1.5"),
        ({"inner_steps": 2.5}, "inner_steps is 2.5"),
        ({"metric": "newtn"}, "did you mean newton"),
        ({"metric_scale": "median"}, "metric_scale"),
        ({"preset": "papr"}, "did you mean paper"),
        ({"damping": -1.0}, "damping"),
        ({"floor": 2.0}, "floor < 1 < ceiling"),
        ({"apply_to": "weights"}, "apply_to"),
        ({"lr": -1.0}, "lr"),
    ],
)
def test_bad_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**values)


def test_missing_or_wrong_pieces_are_refused() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="loss and refresh_batches"):
        optim_core.build("llqr", model)
    with pytest.raises(TypeError, match="refresh_batches must be"):
        optim_core.build("llqr", model, loss=cross_entropy, refresh_batches=3)
    with pytest.raises(ValueError, match="does not belong to the model"):
        optim_core.lookup("llqr")(
            nn.Linear(2, 2).parameters(), model=model, loss=cross_entropy, refresh_batches=[(1, 1)]
        )
    groups = [{"params": [model.weight]}, {"params": [model.bias], "refresh_interval": 5}]
    with pytest.raises(ValueError, match="refresh_interval is 5 in one group"):
        optim_core.lookup("llqr")(groups, model=model, loss=cross_entropy, refresh_batches=[(1, 1)])


@pytest.mark.parametrize("name", ["llqr", "llqr_sam"])
@pytest.mark.parametrize(
    "loss, message",
    [
        (lambda z, t: z.mean(1), "scalar"),
        (lambda z, t: torch.ones((), requires_grad=True), "depend"),
        (lambda z, t: nn.functional.nll_loss(z.log_softmax(1) * 0 + z, t), "no curvature"),
    ],
)
def test_a_loss_that_cannot_work_is_refused_before_a_weight_moves(name: str, loss: Any, message: str) -> None:
    run = make(name, loss=loss, first_refresh=100)
    before = run.weights()
    with pytest.raises((TypeError, ValueError), match=message):
        run.steps(0, 1)
    assert equal(run.weights(), before)


def test_a_module_without_products_is_named_before_a_weight_moves() -> None:
    from tests.optim_core.test_curvature import Stubborn

    model = nn.Sequential(nn.Linear(6, 5), Stubborn(), nn.Linear(5, 3)).double()
    batch = batches_for("llqr")["refresh_batches"]
    optimizer = optim_core.build("llqr", model, loss=cross_entropy, refresh_batches=batch, first_refresh=100)
    before = [p.detach().clone() for p in model.parameters()]

    with pytest.raises(RuntimeError, match=r"no Jacobian-vector product through 1 \(Stubborn\)"):
        optimizer.step(closure_of(optimizer, lambda: cross_entropy(model(batch(0)[0]), batch(0)[1])))
    assert equal([p.detach() for p in model.parameters()], before)


@pytest.mark.parametrize("structure", ["kronecker", "e_kronecker", "psd_kronecker"])
def test_products_in_bfloat16_are_those_of_float32_up_to_its_rounding(structure: str) -> None:
    """Of the factors as they stand after every refresh, and of a loaded state's."""
    steps = {}
    for dtype in ("auto", "bfloat16"):
        run = begin(maker("llqr", structure=structure, refresh_interval=2, action_dtype=dtype), torch.float32)
        run.steps(0, 5)
        state = copy.deepcopy(run.optimizer.state_dict())
        if dtype == "bfloat16":
            assert all(v.dtype == torch.float32 for own in state["state"].values() for v in own.values())
            run.optimizer.load_state_dict(steps["auto"][1])
            run.optimizer.param_groups[0]["action_dtype"] = "bfloat16"
        group, params = run.optimizer.param_groups[0], list(run.model.parameters())
        vectors = [torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) for i, p in enumerate(params)]
        steps[dtype] = run.optimizer.precondition(group, params, vectors), state
    for a, b in zip(steps["auto"][0], steps["bfloat16"][0], strict=True):
        assert 0 < (a - b).norm() < 2e-2 * a.norm() if a.ndim > 1 else torch.equal(a, b)
