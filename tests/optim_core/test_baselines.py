"""torch's optimizers as arms: refused values, betas where schedulers look for them, hooks of other packages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import optim_core
from tests.contracts.optimizer_contract import Run, equal

NAN = float("nan")
OF_SGD = [{"momentum": 1.5}, {"momentum": NAN}, {"lr": NAN}, {"lr": -1.0}]
OF_ADAMW = [{"beta2": 1.0}, {"lr": NAN}, {"eps": 0.0}, {"weight_decay": -0.1}]


@pytest.mark.parametrize(
    "name, values",
    [
        *((name, values) for name in ("sgd", "rotated(sgd)") for values in OF_SGD),
        *((name, values) for name in ("adamw", "rotated(adamw)", "rotated_adamw", "soap") for values in OF_ADAMW),
    ],
)
def test_what_no_run_can_use_is_refused(name: str, values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        optim_core.build(name, nn.Linear(2, 2), **values)
    with pytest.raises(ValueError, match=next(iter(values))):
        optim_core.check(name, **values)


@pytest.mark.parametrize("name", ["adamw", "rotated_adamw", "soap"])
def test_betas_of_groups_and_of_older_checkpoints(name: str) -> None:
    """A group may say beta1, betas or nothing; a checkpoint with beta1 and beta2 loads."""

    def build(**group: Any) -> Any:
        def make(m: nn.Module) -> Any:
            return optim_core.lookup(name)([{"params": list(m.named_parameters()), **group}], lr=0.02, beta2=0.8)  # type: ignore[call-arg]

        return make

    by_name, by_pair = Run(build(beta1=0.5)), Run(build(betas=(0.5, 0.8)))
    by_name.steps(0, 4)
    by_pair.steps(0, 4)
    assert equal(by_name.weights(), by_pair.weights())
    saved = by_name.optimizer.state_dict()
    (group,) = saved["param_groups"]
    group["beta1"], group["beta2"] = group.pop("betas")
    by_name.optimizer.load_state_dict(saved)
    assert by_name.optimizer.param_groups[0]["betas"] == (0.5, 0.8)
    by_name.optimizer.change(beta2=0.7)
    assert by_name.optimizer.param_groups[0]["betas"] == (0.5, 0.7)


@pytest.mark.slow
def test_hooks_of_a_foreign_optimizer_run_once() -> None:
    """Also after one of its class was made outside, whose `step` torch then wraps in the hooks."""
    pytest.importorskip("pytorch_optimizer").SOAP([nn.Parameter(torch.ones(2, 2))])
    for name in ("pytorch_optimizer.SOAP", "rotated(pytorch_optimizer.Lion)"):
        run = Run(lambda m, name=name: optim_core.build(name, m))
        seen: list[str] = []
        run.optimizer.register_step_post_hook(lambda *_, seen=seen: seen.append("after"))
        run.steps(0, 1)
        assert seen == ["after"]
