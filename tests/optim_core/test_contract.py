"""Every registered optimizer runs the whole contract suite."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import optim_core
from tests.contracts import optimizer_contract as contract
from tests.contracts.optimizer_contract import equal

NAMES = optim_core.names()
OF_ONE_MODEL = [n for n in NAMES if not optim_core.lookup(n).PLAYS_GAMES]


def maker(name: str, **values: Any) -> Any:
    def make(model: Any) -> Any:
        given = {**contract.SETTINGS.get(name, {"lr": 0.05}), **values}
        if optim_core.needs_batches(name):
            given |= contract.batches_for(name, next(model.parameters()).dtype)
        return optim_core.build(name, model, **given)

    make.plays_games = optim_core.lookup(name).PLAYS_GAMES  # type: ignore[attr-defined]
    make.with_values = lambda **more: maker(name, **{**values, **more})  # type: ignore[attr-defined]
    return make


@pytest.mark.parametrize("name", NAMES)
def test_counts_gradient_evaluations(name: str) -> None:
    contract.check_counts(maker(name), share=5 / 6 if name == "looksam" else 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_needs_a_closure_with_backward(name: str) -> None:
    contract.check_needs_a_closure_with_backward(maker(name))


@pytest.mark.parametrize("name", NAMES)
def test_learning_rate_zero_moves_nothing(name: str) -> None:
    key = "lr" if "lr" in optim_core.hyperparameters(name) else "step_scale"
    contract.check_learning_rate_zero_moves_nothing(maker(name), key)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype, at", [(torch.float32, 4), (torch.bfloat16, 1)], ids=str)
def test_resumes_bit_for_bit(name: str, dtype: torch.dtype, at: int) -> None:
    contract.check_resumes_bit_for_bit(maker(name), dtype, at)


@pytest.mark.parametrize("name", NAMES)
def test_refuses_unknown_hyperparameters(name: str) -> None:
    contract.check_refuses_unknown_hyperparameters(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NAMES if "lr" in optim_core.hyperparameters(n)])
def test_follows_a_scheduler(name: str) -> None:
    contract.check_follows_a_scheduler(maker(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_hyperparameters_change_while_training(name: str) -> None:
    contract.check_hyperparameters_change_while_training(maker(name), name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["svd", "soap_eig"])
@pytest.mark.parametrize("name", ["rotated_adamw", "rotated(sgd)", "rotated(adamw)"])
def test_the_rotation_changes_while_training(name: str, kind: str) -> None:
    values = {"rotation": kind, "rotation_refresh": 1}
    telling = {"rotation_refresh"} | ({"rotation_ema"} if kind == "soap_eig" else set())
    contract.check_hyperparameters_change_while_training(maker(name, **values), name, telling)


def limits() -> Iterator[Any]:
    """Every declared limit, for every value for which it is claimed (the others at their first)."""
    for name in [*NAMES, "rotated(adamw)", "rotated(torch.optim.RMSprop)"]:
        for number, limit in enumerate(optim_core.limits(name)):
            first = {key: values[0] for key, values in limit.where.items()}
            given = [{**first, key: value} for key, values in limit.where.items() for value in values] or [{}]
            for at in [dict(row) for row in dict.fromkeys(tuple(sorted(g.items())) for g in given)]:
                yield pytest.param(name, number, at, id=f"{name}-{number}-{'-'.join(map(str, at.values()))}")


@pytest.mark.slow
@pytest.mark.parametrize("name, number, at", limits())
def test_is_the_other_optimizer_in_its_limit(name: str, number: int, at: dict[str, Any]) -> None:
    limit = optim_core.limits(name)[number]
    defaults = {key: p.default for key, p in optim_core.hyperparameters(name).items() if p.default is not None}
    own = contract.SETTINGS.get(name, {"lr": 0.05})
    here, other, there = optim_core.in_limit(name, limit, {**defaults, "weight_decay": 0.01, **own, **at})
    if "weight_decay" not in defaults:
        here.pop("weight_decay", None)
    contract.check_limit(maker(name, **here), maker(other, **there), limit.deviation)


@pytest.mark.parametrize("name", NAMES)
def test_values_below_a_natural_bound_are_refused(name: str) -> None:
    for key, (low, _) in optim_core.lookup(name).BOUNDS.items():
        if key in optim_core.hyperparameters(name):
            with pytest.raises(ValueError):
                contract.begin(maker(name, **{key: low - 1}))


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_ONE_MODEL)
def test_never_reuses_a_gradient(name: str) -> None:
    contract.check_never_reuses_a_gradient(maker(name))


@pytest.mark.parametrize(
    "name, call", [(n, c) for n in OF_ONE_MODEL for c in range(1, 1 + int(optim_core.lookup(n).GRAD_EVALS))]
)
def test_skips_what_is_not_finite(name: str, call: int) -> None:
    contract.check_skips_what_is_not_finite(maker(name), call)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, values",
    [
        *((name, {}) for name in OF_ONE_MODEL),
        ("llqr", {"base": "adamw"}),
        ("rotated_adamw", {"rotation": "svd"}),
        ("rotated_adamw", {"rotation": "egop"}),
        ("nesterov", {"smoothness": "estimate"}),
        ("torch.optim.RMSprop", {}),
    ],
)
def test_a_fresh_optimizer_takes_a_distributed_checkpoint(name: str, values: dict[str, Any]) -> None:
    contract.check_a_fresh_optimizer_takes_a_distributed_checkpoint(maker(name, **values))


def test_names_are_unique_and_unknown_ones_are_explained() -> None:
    with pytest.raises(ValueError, match="registered twice"):
        optim_core.register("sgd")(optim_core.lookup("adamw"))
    with pytest.raises(KeyError, match="did you mean rotated_adamw"):
        optim_core.lookup("rotated_adam")


def test_foreign_optimizers_are_arms_too() -> None:
    run = contract.Run(lambda m: optim_core.build("torch.optim.RMSprop", m, lr=0.01))
    twin = contract.Run(lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01))
    assert run.steps(0, 5) == twin.steps(0, 5)
    assert run.optimizer.grad_evals == 5
    assert "alpha" in optim_core.hyperparameters("torch.optim.RMSprop")


def test_float32_state_beside_bfloat16_weights_survives_loading() -> None:
    class Wide(optim_core.Counting):
        def __init__(self, params: Any, *, lr: float = 0.1) -> None:
            super().__init__(params, {"lr": lr})
            for p in self.param_groups[0]["params"]:
                self.state[p]["basis"] = torch.full(p.shape, 1 / 3, dtype=torch.float32)

    model = nn.Linear(2, 2).bfloat16()
    first, second = Wide(list(model.parameters())), Wide(list(model.parameters()))
    second.load_state_dict(first.state_dict())
    assert all(
        s["basis"].dtype == torch.float32 and float(s["basis"].flatten()[0]) == float(torch.tensor(1 / 3))
        for s in second.state.values()
    )


@pytest.mark.parametrize(
    "name, reason",
    [
        ("torch.optim.LBFGS", "closure"),
        ("torch.optim.SparseAdam", "dense gradients"),
        ("torch.optim.Muon", "2D"),
        ("pytorch_optimizer.AdaHessian", "does not require grad"),
        ("pytorch_optimizer.SophiaH", "does not require grad"),
        ("pytorch_optimizer.AdamMini", "named_parameters"),
        ("pytorch_optimizer.AdaMuon", "its own parameter groups"),
        ("pytorch_optimizer.SAM", "base_optimizer"),
    ],
)
def test_foreign_optimizers_that_cannot_be_arms_are_refused_by_name(name: str, reason: str) -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(KeyError, match=f"cannot be an arm.*{reason}"):
        optim_core.hyperparameters(name)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_maximize_of_a_foreign_optimizer_climbs() -> None:
    run = contract.Run(lambda m: optim_core.build("torch.optim.SGD", m, lr=0.05, maximize=True))
    twin = contract.Run(lambda m: torch.optim.SGD(m.parameters(), lr=0.05, maximize=True))
    assert run.steps(0, 5) == twin.steps(0, 5)
    assert equal(run.weights(), twin.weights())


RANGED = ["schedule_free", "llqr", *(n for n in NAMES if n.endswith("sam"))]


@pytest.mark.parametrize("name", RANGED)
def test_values_out_of_range_are_refused_before_and_while_building(name: str) -> None:
    known = optim_core.hyperparameters(name)
    wrong = {
        **dict.fromkeys(("lr", "weight_decay", "sam_radius"), (-0.1, math.nan, math.inf)),
        **dict.fromkeys(("momentum", "beta2"), (1.5, math.nan)),
        "eps": (0.0,),
    }
    base = {"base": "adamw"} if "base" in known else {}
    for key, values in wrong.items():
        for value in values if key in known else ():
            with pytest.raises(ValueError, match=key):
                optim_core.check(name, **{key: value})
            with pytest.raises(ValueError, match=key):
                maker(name, **base, **{key: value})(nn.Linear(2, 2))
