"""Every metric reaches MLflow, under its own name wherever MLflow takes it."""

from __future__ import annotations

import pytest
from mlflow.utils.validation import _validate_metric_name

from orchestrator.tracking.names import accepted

ODD = [
    "recall@5",
    "mAP50(B)",
    "acc %",
    "точность",
    "n" * 400,
    "a//b",
    "../x",
    "/etc",
    ".",
    "..",
    "a/../b",
    "x\ny",
    "a:b",
    "",
]


@pytest.mark.parametrize("key", [*ODD, "loss/val", "time/step_s", "a b"])
def test_mlflow_takes_every_name(key: str) -> None:
    name = accepted([key])[key]
    _validate_metric_name(name)
    assert len(name) <= 250


def test_names_that_are_taken_stay_and_no_two_become_one() -> None:
    found = accepted(["recall@5", "recall#5", "recall_5", "loss/val", *ODD])
    assert found["loss/val"] == "loss/val"
    assert found["recall_5"] == "recall_5"
    assert found["точность"] == "точность"
    assert len(set(found.values())) == len(found)
