"""Optimizers agree with their authors' code, step by step over 100 steps in float64."""

from __future__ import annotations

from typing import Any

import pytest

import optim_core
from tests.golden.agreement.problem import Tensors, read, trajectory


Path = dict[str, list[list[float]]]


def follow(optimizer: Any, model: Tensors) -> Path:
    return trajectory(model, lambda number: optimizer.step(lambda: model.differentiate(number)))


def check_agreement(found: Path, wanted: Path, tolerance: float) -> None:
    assert found.keys() == wanted.keys()
    for step, tensors in wanted.items():
        for i, (a, b) in enumerate(zip(found[step], tensors, strict=True)):
            distance = max((abs(x - y) for x, y in zip(a, b, strict=True)), default=0.0)
            assert distance <= tolerance, (step, i, distance)


SOAP = read("soap")


@pytest.mark.parametrize("case", SOAP["cases"])
def test_soap_agrees_with_its_authors(case: str) -> None:
    given = dict(SOAP["cases"][case]["arguments"])
    given["beta1"], given["beta2"] = given.pop("betas", (0.95, 0.95))
    model = Tensors(SOAP["shapes"])
    check_agreement(follow(optim_core.build("soap", model, **given), model), SOAP["cases"][case]["weights"], 1e-9)
