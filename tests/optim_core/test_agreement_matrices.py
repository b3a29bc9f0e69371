"""Optimizers agree with their authors' code, step by step over 100 steps in float64."""

from __future__ import annotations

from typing import Any

import pytest

import optim_core
from tests.golden.agreement.matrices.problem import Tensors, flat, read, trajectory

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


SPLUS, PSGD_KRON, DION = read("splus"), read("psgd_kron"), read("dion")


@pytest.mark.parametrize("case", SPLUS["cases"])
def test_splus_agrees_with_its_authors_also_in_what_it_evaluates(case: str) -> None:
    wanted = SPLUS["cases"][case]
    theirs = {
        "b1": "beta1", "b2": "beta2", "ema_rate": "average_decay", "inverse_every": "precondition_frequency",
        "max_dim": "max_precond_dim",
    }  # fmt: skip
    given = {theirs.get(key, key): value for key, value in wanted["arguments"].items()}
    given["max_precond_dim"] = int(given.get("max_precond_dim", 10000))
    model = Tensors(SPLUS["shapes"])
    optimizer = optim_core.build("splus", model, **given)
    check_agreement(follow(optimizer, model), wanted["weights"], 1e-9)
    with optimizer.judged_weights():
        check_agreement({"average": flat(model.parameters())}, {"average": wanted["evaluated"]}, 1e-9)
    check_agreement({"100": flat(model.parameters())}, {"100": wanted["weights"]["100"]}, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("case", PSGD_KRON["cases"])
def test_psgd_kron_agrees_with_kron(case: str) -> None:
    wanted = PSGD_KRON["cases"][case]
    theirs = {"b1": "momentum", "max_size_triangular": "max_precond_dim"}
    given = {theirs.get(key, key): value for key, value in wanted["arguments"].items()}
    model = Tensors(PSGD_KRON["shapes"])
    check_agreement(follow(optim_core.build("psgd_kron", model, **given), model), wanted["weights"], 1e-9)


@pytest.mark.parametrize("case", DION["cases"])
def test_dion_agrees_with_its_authors(case: str) -> None:
    wanted = DION["cases"][case]
    model = Tensors(DION["shapes"])
    hidden, rest = dict(wanted["arguments"]["hidden"]), wanted["arguments"]["rest"]
    hidden["momentum"] = hidden.pop("mu")
    groups = [
        {"params": [p for p in model.parameters() if p.ndim == 2], "hidden": True, **hidden},
        {"params": [p for p in model.parameters() if p.ndim != 2], "hidden": False, **rest},
    ]
    check_agreement(follow(optim_core.dion.Dion(groups), model), wanted["weights"], 1e-9)


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
