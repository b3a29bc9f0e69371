"""Spaces: every drawn configuration obeys its ranges, conditions and constraints; grids have each point once."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.definition import sweep_file
from orchestrator.definition.errors import SpecError
from orchestrator.definition.space import (
    Parameter,
    SpaceError,
    corners,
    from_unit,
    grid,
    names_in,
    order,
    renamed,
    satisfied,
    value_at,
)
from orchestrator.definition.yaml12 import parse
from orchestrator.search.designs import design_for

SPACE = (
    Parameter(name="kind", kind="categorical", values=("a", "b")),
    Parameter(name="lr", kind="float", low=1e-4, high=1.0, log=True),
    Parameter(name="k", kind="int", low=2, high=9, when={"kind": ("b",)}),
    Parameter(name="rate", kind="float", low=0.5, high=0.999, one_minus=True, when={"k": (3, 4)}),
    Parameter(name="q", kind="float", low=0.1, high=0.9, step=0.2),
)


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=5, max_size=5))
def test_every_point_is_in_the_space(u: list[float]) -> None:
    c = from_unit(SPACE, u)
    assert c["kind"] in ("a", "b")
    assert 1e-4 <= c["lr"] <= 1
    assert ("k" in c) is (c["kind"] == "b")
    assert ("rate" in c) is (c.get("k") in (3, 4))
    assert 0.5 - 1e-12 <= c.get("rate", 0.7) <= 0.999 + 1e-12
    assert min(abs(c["q"] - x) for x in (0.1, 0.3, 0.5, 0.7, 0.9)) < 1e-12


def test_inverse_distribution_functions() -> None:
    lr = SPACE[1]
    assert value_at(lr, 0.5) == pytest.approx(1e-2)
    whole = Parameter(name="n", kind="int", low=1, high=4)
    counts = [sum(value_at(whole, i / 4000) == n for i in range(4000)) for n in (1, 2, 3, 4)]
    assert counts == [1000] * 4
    rate = SPACE[3]
    assert math.log10(1 - value_at(rate, 0.5)) == pytest.approx((math.log10(0.5) + math.log10(0.001)) / 2)


def test_grid_collapses_conditions() -> None:
    space = (
        Parameter(name="r", kind="categorical", values=("id", "svd")),
        Parameter(name="every", kind="categorical", values=(10, 50, 250), when={"r": ("svd",)}),
    )
    found = grid(space)
    assert found == [{"r": "id"}, *({"r": "svd", "every": k} for k in (10, 50, 250))]
    with pytest.raises(SpaceError, match="lr: a grid needs values"):
        grid(SPACE[1:2])


def test_order_puts_parents_first() -> None:
    assert [p.name for p in order(SPACE[::-1])][0:2] == ["q", "lr"]
    names = [p.name for p in order(SPACE[::-1])]
    assert names.index("kind") < names.index("k") < names.index("rate")


@pytest.mark.parametrize(
    "text, config, obeyed",
    [
        ("k * 5 <= steps", {"k": 10}, True),
        ("k * 5 <= steps", {"k": 30}, False),
        ("k * 5 <= steps", {}, True),
        ("1 < k < 10 and log10(lr) < -1", {"k": 5, "lr": 0.01}, True),
        ("1 < k < 10 and log10(lr) < -1", {"k": 10, "lr": 0.01}, False),
        ("not k == 3 or min(k, 2) == 3", {"k": 3}, False),
        ("task.width * 2 <= steps and groups.embed.lr < 1", {"task.width": 50, "groups.embed.lr": 0.1}, True),
        ("task.width * 2 <= steps", {"task.width": 51}, False),
        ("task.width * 2 <= steps", {"width": 51}, True),
        ("-k ** 2 % 7 // 2 >= 0 or k / 2 != 1", {"k": 4}, True),
    ],
)
def test_constraints(text: str, config: dict[str, float], obeyed: bool) -> None:
    assert satisfied([text], config, steps=100) is obeyed


@pytest.mark.parametrize(
    "text", ["__import__('os') == 1", "min(k, 2).real < 1", "[k] == 1", "(lambda: 1)() < 2", "k < 1; k"]
)
def test_constraints_run_no_code(text: str) -> None:
    with pytest.raises(SpaceError):
        names_in(text)


def test_names_in_constraints_are_exchanged_whole() -> None:
    text = "width * task.width <= min(widthy, width) and kind == 'width'"
    assert names_in(text) == {"width", "task.width", "widthy", "kind"}
    assert renamed(text, {"width": "task.width"}) == (
        "task.width * task.width <= min(widthy, task.width) and kind == 'width'"
    )
    assert renamed(text, {"nobody": "x"}) == text


def test_corners_follow_conditions() -> None:
    assert corners(SPACE, ["k"]) == [{"kind": "a"}, {"kind": "b", "k": 2}, {"kind": "b", "k": 9}]
    assert corners(SPACE, ["lr", "q"]) == [{"lr": a, "q": b} for a in (1e-4, 1.0) for b in (0.1, 0.9)]
    assert corners(SPACE, []) == [{}]
    many = [Parameter(name=f"p{i}", kind="int", low=0, high=9) for i in range(40)]
    found = corners(many, [p.name for p in many])
    assert len(found) == 41
    assert all(sum(config.values()) in (0, 9) for config in found)


TEXT = """
schema_version: 1
name: t
task: {{name: digits, model: mlp}}
metric: {{name: accuracy/val, goal: maximize}}
arms: {{sam: {{parameters: {{lr: {{min: 0.0, max: 1.0}}, base: {{values: [sgd, adamw]}},
  momentum: {{values: [0.0, 0.5, 0.9], when: {{base: sgd}}}}}}}}}}
constraints: ["lr * steps < 80"]
method: {{name: {method}, seed: 1}}
budget: {{per_trial: 320, trials_per_arm: 64}}
"""


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_designs_are_functions_of_the_index_and_obey(method: str) -> None:
    s = sweep_file.loads(TEXT.format(method=method))
    arm = s.arms["sam"]
    first = [design_for(s, arm).configuration(i) for i in (5, 0, 63)]
    design = design_for(s, arm)
    every = [design.configuration(i) for i in range(64)]
    assert first == [every[5], every[0], every[63]]
    assert all(c["lr"] * 160 < 80 for c in every)
    assert all(("momentum" in c) is (c["base"] == "sgd") for c in every)
    share = sum(c["base"] == "sgd" for c in every) / 64
    assert 0.3 < share < 0.7


@pytest.mark.slow
def test_an_infeasible_space_is_refused() -> None:
    text = TEXT.format(method="random")
    with pytest.raises(SpecError, match="none of 1,000 configurations drawn at random satisfies the constraints"):
        sweep_file.loads(text.replace("lr * steps < 80", "lr * steps < -1"))
    s = replace(sweep_file.loads(text), constraints=("lr * steps < -1",))
    with pytest.raises(SpaceError, match="20000 points in a row violate the constraints"):
        design_for(s, s.arms["sam"]).configuration(0)


def test_finite_spaces_repeat_nothing_before_they_must() -> None:
    s = sweep_file.loads(
        TEXT.format(method="random").replace("lr: {min: 0.0, max: 1.0}, ", "").replace("lr * steps < 80", "steps > 1")
    )
    design = design_for(s, s.arms["sam"])
    found = [design.configuration(i) for i in range(4)]
    assert len({str(sorted(c.items())) for c in found}) == 4


@pytest.mark.parametrize(
    "text, value",
    [
        ("1e-4", 1e-4), ("no", "no"), ("on", "on"), ("true", True), ("0o17", 15), ("017", 17), ("1_000", "1_000"),
        ("12:30", "12:30"), ("~", None), (".inf", math.inf), ("-.5", -0.5), ("2026-01-01", "2026-01-01"), ("0x1F", 31),
    ],
)  # fmt: skip
def test_yaml_is_read_as_1_2(text: str, value: object) -> None:
    assert parse(f"a: {text}").value == {"a": value}


@pytest.mark.parametrize(
    "text", ["1 / x > 0", "log10(x) > -3", "(x - 1) ** 0.5 < 2", "x % 0 == 1", "10.0 ** (400 * (x + 1)) > 1"]
)
def test_a_constraint_that_cannot_be_computed_is_not_obeyed(text: str) -> None:
    assert not satisfied([text], {"x": 0})


def test_a_whole_range_with_a_fractional_quantum_is_one_of_numbers() -> None:
    text = TEXT_OF_ONE.format("{min: 0, max: 1, q: 0.25}")
    (lr,) = sweep_file.loads(text, "x.yaml").arms["sgd"].parameters
    assert lr.kind == "float"
    assert grid([lr]) == [{"lr": v} for v in (0.0, 0.25, 0.5, 0.75, 1.0)]


def test_a_huge_range_is_drawn_from_and_not_listed() -> None:
    spec = sweep_file.loads(TEXT_OF_ONE.format("{min: 0, max: 1000000000}"), "x.yaml")
    design = design_for(spec, spec.arms["sgd"])
    assert all(0 <= design.configuration(i)["lr"] <= 10**9 for i in range(4))
    many = [Parameter(name=name, kind="int", low=1, high=400) for name in "abc"]
    with pytest.raises(SpaceError, match="the grid has 64,000,000 points"):
        grid(many)


@pytest.mark.slow
def test_a_narrow_constraint_is_searched_for() -> None:
    """About one point of 500 obeys it."""
    text = TEXT_OF_ONE.format("{min: 0.0, max: 1.0}") + "constraints: ['lr < 0.002']\n"
    spec = sweep_file.loads(text, "x.yaml")
    design = design_for(spec, spec.arms["sgd"])
    assert all(design.configuration(i)["lr"] < 0.002 for i in range(8))


TEXT_OF_ONE = """
schema_version: 1
name: x
task: {{name: "tests.tasks:Fit"}}
metric: {{name: loss/val, goal: minimize}}
arms: {{sgd: {{parameters: {{lr: {}}}}}}}
method: {{name: random}}
budget: {{unit: grad_evals, per_trial: 40, trials_per_arm: 4}}
"""
