"""What a task may return from `evaluate`, and what is said of the rest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from trainables.metrics import MEASURED, numbers


@pytest.mark.parametrize(
    "value",
    [
        2,
        2.0,
        np.float32(2),
        np.int64(2),
        np.array([2.0]),
        torch.tensor(2.0),
        torch.tensor([2]),
        torch.tensor(2.0).requires_grad_(),
    ],
    ids=repr,
)
def test_scalars_of_every_library_are_numbers(value: Any) -> None:
    found = numbers({"loss/val": value}, "Line")["loss/val"]
    assert type(found) is float
    assert found == 2.0


def test_what_is_not_finite_is_a_number() -> None:
    found = numbers({"a": math.inf, "b": math.nan, "c": True}, "Line")
    assert found["a"] == math.inf
    assert math.isnan(found["b"])
    assert found["c"] == 1.0


@pytest.mark.parametrize(
    "value", [None, "0.5", b"1", [1.0, 2.0], {"a": 1.0}, np.ones(2), torch.ones(2), 10**400, 1j], ids=repr
)
def test_anything_else_is_refused_with_its_name(value: Any) -> None:
    with pytest.raises(TypeError, match="'recall@5'") as refused:
        numbers({"loss/val": 1.0, "recall@5": value}, "Line")
    assert "evaluate of task Line" in str(refused.value)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("key", ["", 3, None, "half \ud800", *MEASURED])
def test_names_that_cannot_be_a_metrics(key: Any) -> None:
    with pytest.raises(TypeError, match="task Line"):
        numbers({key: 1.0}, "Line")


@pytest.mark.parametrize("returned", [None, 0.3, [("loss/val", 0.3)]])
def test_not_a_dict(returned: Any) -> None:
    with pytest.raises(TypeError, match="return a dict of numbers"):
        numbers(returned, "Line")
