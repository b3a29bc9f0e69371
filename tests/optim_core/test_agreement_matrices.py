"""Optimizers agree with their authors' code, step by step over 100 steps in float64."""

from __future__ import annotations

from typing import Any

import pytest

import optim_core
from tests.golden.agreement.matrices.problem import Tensors, read, trajectory

Path = dict[str, list[list[float]]]


def follow(optimizer: Any, model: Tensors) -> Path:
    return trajectory(model, lambda number: optimizer.step(lambda: model.differentiate(number)))


def check_agreement(found: Path, wanted: Path, tolerance: float) -> None:
    assert found.keys() == wanted.keys()
    for step, tensors in wanted.items():
        for i, (a, b) in enumerate(zip(found[step], tensors, strict=True)):
            distance = max((abs(x - y) for x, y in zip(a, b, strict=True)), default=0.0)
            assert distance <= tolerance, (step, i, distance)


@pytest.mark.parametrize("name", ["muon", "normuon"])
def test_muon_and_its_variant_agree_with_their_authors(name: str) -> None:
    """With the iteration in float64, to which the authors' is lifted as well."""
    values = read(name)
    (case,) = values["cases"].values()
    model = Tensors(values["shapes"])
    hidden, rest = dict(case["arguments"]["hidden"]), dict(case["arguments"]["rest"])
    rest["beta1"], rest["beta2"] = rest.pop("betas")
    if name == "normuon":
        hidden["normuon_beta2"] = hidden.pop("beta2")
    groups = [
        {"params": [p for p in model.parameters() if p.ndim in (2, 4)], "hidden": True, **hidden},
        {"params": [p for p in model.parameters() if p.ndim not in (2, 4)], "hidden": False, **rest},
    ]
    optimizer = optim_core.lookup(name)(groups, adjust_lr="original", newton_schulz_dtype="float64")  # type: ignore[call-arg]
    check_agreement(follow(optimizer, model), case["weights"], 1e-9)


CASES = [(name, case) for name in ("soap", "shampoo", "kl_shampoo") for case in read(name)["cases"]]


@pytest.mark.slow
@pytest.mark.parametrize("name, case", CASES)
def test_shampoo_and_its_kin_agree_with_their_authors(name: str, case: str) -> None:
    values = read(name)
    given = dict(values["cases"][case]["arguments"])
    if "betas" in given:
        given["beta1"], given["beta2"] = given.pop("betas")
    model = Tensors(values["shapes"])
    check_agreement(follow(optim_core.build(name, model, **given), model), values["cases"][case]["weights"], 1e-9)


GALORE = read("galore")


@pytest.mark.parametrize("case", GALORE["cases"])
def test_galore_agrees_with_its_authors(case: str) -> None:
    """Where the two agree on eps: far below v."""
    given = GALORE["cases"][case]["arguments"]
    model = Tensors(GALORE["shapes"])
    optimizer = optim_core.build(
        "rotated_adamw",
        model,
        rotation="galore",
        rotation_rank=given["rank"],
        lr=given["lr"],
        eps=given["eps"],
        weight_decay=0.0,
    )
    check_agreement(follow(optimizer, model), GALORE["cases"][case]["weights"], 1e-9)
