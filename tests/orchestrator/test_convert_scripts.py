"""Converted sweeps are sweeps of scripts: their arms, their budget, and what a script cannot be given."""

from __future__ import annotations

import json

import pytest

from tests.orchestrator.test_convert import KATIB, drafted


def test_every_value_of_a_list_is_an_arm() -> None:
    """Values that read alike, or cannot be a name, are arms too."""
    values = ["1", 1, None, "Adam", "adam", "a@b", "a/b", {"a": 1}, [1, 2]]
    text = f"method: grid\nprogram: t.py\nparameters: {{o: {{values: {json.dumps(values)}}}}}\n"
    _, found = drafted("wandb", text, by="o")
    given = [arm["parameters"]["o"] for arm in found["arms"].values()]
    assert given == [{"value": one} if isinstance(one, dict) else one for one in values]
    assert len({name.casefold() for name in found["arms"]}) == len(values)


@pytest.mark.parametrize("epochs", ["num-epochs: {value: 5}", "Num_Epochs: {value: '5'}", "epochs: {values: [5]}"])
def test_spellings_of_the_budget(epochs: str) -> None:
    _, found = drafted("wandb", f"method: grid\nprogram: t.py\nparameters: {{r: {{values: [1, 2]}}, {epochs}}}\n")
    assert found["budget"] == {"unit": "epochs", "per_trial": 5}
    assert found["task"]["budget_arg"] == epochs.partition(":")[0]


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("ray", "e: {run: t.py, num_samples: 2, scheduler: pbt, config: {r: 'tune.uniform(1, 2)'}}"),
        ("katib", KATIB.replace("bayesianoptimization", "pbt")),
    ],
)
def test_a_script_is_no_population(word: str, text: str) -> None:
    draft, found = drafted(word, text)
    assert "early_terminate" not in found
    assert any(n.kind == "left out" and "population" in n.text for n in draft.notes)


def test_named_arguments_of_ray() -> None:
    calls = {"a": "tune.quniform(q=0.5, upper=3, lower=1)", "b": "tune.choice(categories=[1, 2])"}
    calls |= {"c": "tune.randn(sd=1.0, mean=2.0)", "d": "tune.uniform(1, low=3)", "e": "tune.uniform(upper=3)"}
    draft, found = drafted("ray", json.dumps({"e": {"run": "t.py", "num_samples": 2, "config": calls}}))
    assert found["parameters"] == {
        "a": {"distribution": "q_uniform", "min": 1.0, "max": 3.0, "q": 0.5},
        "b": {"values": [1, 2]},
        "c": {"distribution": "uniform", "min": 0.0, "max": 4.0},
    }
    assert [n.key for n in draft.notes if n.kind == "left out"] == ["e.config.d", "e.config.e"]
