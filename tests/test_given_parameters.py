"""Which of its parameters a script has looked at: `geosweep.trial().parameters`."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from geosweep._parameters import Parameters


@pytest.mark.parametrize(
    ("look", "left"),
    [
        (lambda p: p["lr"], {"width"}),
        (lambda p: p.get("width"), {"lr"}),
        (lambda p: p.get("depth", 2), {"lr", "width"}),
        (lambda p: "lr" in p and p["lr"], {"width"}),
        (lambda p: p.pop("lr"), {"width"}),
        (lambda p: p.of(("lr", "momentum")), {"width"}),
        (lambda p: p.setdefault("depth", 2), {"lr", "width"}),
        (lambda p: repr(p), {"lr", "width"}),
        (lambda p: argparse.Namespace(**p), set()),
        (lambda p: {"depth": 2, **p}, set()),
        (lambda p: p | {"depth": 2}, set()),
        (lambda p: {"depth": 2} | p, set()),
        (lambda p: dict(p), set()),
        (lambda p: dict(p.items()), set()),
        (lambda p: json.dumps(p), set()),
        (lambda p: copy.deepcopy(p), set()),
    ],
)
def test_what_was_not_looked_at(look: Callable[[Parameters], Any], left: set[str]) -> None:
    found = Parameters({"lr": 0.1, "seeded": 1}, {"lr": 0.2, "width": 8})
    look(found)
    assert found.unread == left


def test_it_is_a_dictionary() -> None:
    found = Parameters({"lr": 0.1, "depth": 2}, {"lr": 0.2})
    assert isinstance(found, dict)
    assert (found, dict(found), found | {"lr": 1}) == ({"lr": 0.2, "depth": 2},) * 2 + ({"lr": 1, "depth": 2},)
    assert json.loads(json.dumps(found)) == copy.deepcopy(found) == found.copy() == found
