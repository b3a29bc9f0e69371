"""Groups of parameters by name: the first pattern that matches has them, for every optimizer that can."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import optim_core
from optim_core.groups import assigned
from tests.contracts.optimizer_contract import SETTINGS, Run, batches_for

NAMES = [name for name in optim_core.names() if not optim_core.lookup(name).PLAYS_GAMES]
ABLE = [name for name in NAMES if optim_core.groupable(name)]
FOREIGN = ["torch.optim.Adam", "torch.optim.RMSprop", "torch.optim.Adagrad", "rotated(sgd)"]


def run(name: str, groups: dict[str, Any], **values: Any) -> Run:
    given = {**SETTINGS.get(name, {}), **values}
    return Run(lambda model: optim_core.build(name, model, groups=groups, **given, **batches_for(name)))


def test_the_first_match_wins() -> None:
    names = ["emb.weight", "block.norm.weight", "block.norm.bias", "head.bias"]
    patterns = {"no_decay": ["*.bias", "*norm*"], "norms": ["*norm*"], "embed": ["emb*"]}
    assert assigned(names, patterns) == {
        "emb.weight": "embed", "block.norm.weight": "no_decay", "block.norm.bias": "no_decay", "head.bias": "no_decay"
    }  # fmt: skip
    assert assigned(["Bias"], {"a": ["bias"]}) == {}


NUMBERED = {"psgd_kron"}
"""Optimizers that draw noise for each parameter by its number among all groups, which divided groups change."""


@pytest.mark.parametrize("name", [*(name for name in ABLE if name not in NUMBERED), *FOREIGN])
def test_a_group_with_the_same_values_changes_nothing(name: str) -> None:
    plain, divided = run(name, {}, lr=0.02), run(name, {"first": {"match": ["0.*"], "lr": 0.02}}, lr=0.02)
    plain.steps(0, 5), divided.steps(0, 5)
    for a, b in zip(plain.weights(), divided.weights(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


VALUES = {"lr": 0.03, "momentum": 0.5, "weight_decay": 0.1, "beta1": 0.7, "beta2": 0.8, "eps": 1e-3, "sam_radius": 0.1}
CLAIMS = [(name, key) for name in ABLE for key in sorted(optim_core.groupable(name))]


@pytest.mark.slow
@pytest.mark.parametrize("name, key", CLAIMS)
def test_what_is_declared_groupable_is_read_in_the_group(name: str, key: str) -> None:
    base = "adamw" if key in ("beta1", "beta2", "eps") and "base" in optim_core.hyperparameters(name) else None
    given = {} if base is None else {"base": base}
    whole = run(name, {}, **given, **{key: VALUES[key]})
    grouped = run(name, {"all": {"match": ["*"], key: VALUES[key]}}, **given)
    whole.steps(0, 4), grouped.steps(0, 4)
    for a, b in zip(whole.weights(), grouped.weights(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in [*ABLE, *FOREIGN] if "lr" in optim_core.groupable(name)])
def test_a_group_has_its_own_rate_and_keeps_it(name: str) -> None:
    one = run(name, {"still": {"match": ["*.bias"], "lr": 0.0}}, lr=0.02)
    before = copy.deepcopy(one.model.state_dict())
    one.steps(0, 2)
    one.optimizer.change(lr=0.01)
    one.steps(2, 4)
    for key, value in one.model.state_dict().items():
        assert torch.equal(value, before[key]) is key.endswith("bias"), key


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ABLE, *FOREIGN])
def test_a_divided_optimizer_resumes_bit_for_bit(name: str) -> None:
    groups = {"embed": {"match": ["0.weight"], "lr": 0.005}, "biases": {"match": ["*.bias"], "lr": 0.01}}
    whole = run(name, groups, lr=0.02)
    whole.steps(0, 3)
    half = run(name, groups, lr=0.02)
    half.model.load_state_dict(whole.model.state_dict())
    half.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
    whole.steps(3, 6), half.steps(3, 6)
    assert all(torch.equal(a, b) for a, b in zip(whole.weights(), half.weights(), strict=True))


def test_weight_decay_by_group_is_torchs() -> None:
    ours = run("adamw", {"no_decay": {"match": ["*.bias"], "weight_decay": 0.0, "beta2": 0.9}}, lr=0.02)
    model = Run(lambda m: torch.optim.SGD(m.parameters())).model
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    others = [p for name, p in model.named_parameters() if not name.endswith("bias")]
    theirs = torch.optim.AdamW(
        [{"params": others}, {"params": biases, "weight_decay": 0.0, "betas": (0.9, 0.9)}], lr=0.02, foreach=True
    )
    for i in range(4):
        x, y = ours.batch(i)
        theirs.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        theirs.step()
    ours.steps(0, 4)
    for a, b in zip(ours.weights(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "name, group, message",
    [
        ("sgd", {"match": ["nobody.*"], "lr": 0.1}, "none of nobody"),
        ("sgd", {"match": [], "lr": 0.1}, "match is a list"),
        ("sgd", {"match": "*.bias", "lr": 0.1}, "match is a list"),
        ("sgd", {"match": ["*.bias"], "nesterov": True}, "nesterov of SGD must be one for all parameters"),
        ("llqr", {"match": ["*.bias"], "ema_rate": 0.1}, "ema_rate of LLQR must be one"),
        ("sam", {"match": ["*.bias"], "eps": 0.1}, "eps of SAM has no meaning"),
        ("gd", {"match": ["*.bias"], "step_scale": 0.1}, "must be one"),
    ],
)
def test_what_cannot_be_is_refused(name: str, group: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(name, {"one": group})


def test_rotations_that_mix_tensors_refuse_groups() -> None:
    with pytest.raises(ValueError, match="mixes tensors"):
        run("rotated_adamw", {"one": {"match": ["*.bias"], "lr": 0.1}}, rotation="global")


def test_betas_of_torchs_adam_may_be_a_list() -> None:
    made = run("torch.optim.Adam", {"one": {"match": ["*.bias"], "betas": [0.5, 0.9]}}, betas=[0.8, 0.95])
    assert [g["betas"] for g in made.optimizer.param_groups] == [(0.8, 0.95), (0.5, 0.9)]
    with pytest.raises(ValueError, match="beta"):
        optim_core.try_out("torch.optim.Adam", betas=[0.9, 1.5])
