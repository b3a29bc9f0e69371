"""Everything in a sweep file can be searched: names, kinds of values, groups, schedules; plans and rules know it."""

from __future__ import annotations

import json
import random
from typing import Any

import yaml

from orchestrator.definition import model, plan, sweep_file
from orchestrator.definition.parts import split
from orchestrator.definition.planned import GroupSize
from orchestrator.definition.space import Parameter, from_unit
from orchestrator.protocol.lint import lint
from orchestrator.scheduling.studies import space_of

SWEEP: dict[str, Any] = {
    "schema_version": 1,
    "name": "s",
    "task": {"name": "digits"},
    "metric": {"name": "accuracy/val", "goal": "maximize", "report_metric": "accuracy/test"},
    "arms": {"sgd": {}, "sam": {}},
    "parameters": {"lr": {"distribution": "log_uniform_values", "min": 0.01, "max": 1}},
    "budget": {"per_trial": 200, "trials_per_arm": 4},
    "seeds": {"studies": 6, "tune": 1, "confirm": 1},
}


def sweep(**changes: Any) -> model.Spec:
    return sweep_file.loads(text(**changes))


def text(**changes: Any) -> str:
    parameters = {**SWEEP["parameters"], **changes.pop("parameters", {})}
    return yaml.safe_dump({**SWEEP, "parameters": parameters, **changes}, sort_keys=False)


def found(spec: model.Spec, arm: str = "sgd") -> dict[str, Parameter]:
    return {p.name: p for p in spec.arms[arm].parameters}


def test_bare_names_are_the_tasks_or_the_recipes() -> None:
    s = sweep(
        parameters={
            "batch_size": {"values": [32, 64]},
            "task.model": {"values": ["mlp", "resnet8"]},
            "width": {"min": 16, "max": 64, "when": {"model": ["mlp"]}},
            "warmup": {"values": [0, "5%", 20]},
            "training.final_lr": {"min": 0, "max": "10%"},
            "precision": "bf16",
        },
        constraints=["batch_size * 2 <= steps", "task.width <= 64 or warmup == 0"],
    )
    assert found(s).keys() == {
        "lr", "task.batch_size", "task.model", "task.width", "training.warmup", "training.final_lr",
        "training.precision",
    }  # fmt: skip
    assert found(s)["training.warmup"].values == (0.0, 0.05, 0.1)
    assert (found(s)["training.final_lr"].low, found(s)["training.final_lr"].high) == (0.0, 0.1)
    assert found(s)["task.width"].when == {"task.model": ("mlp",)}
    assert s.constraints == ("task.batch_size * 2 <= steps", "task.width <= 64 or training.warmup == 0")
    assert s.task.parameters == {"noise": 0.0}
    arm = s.arms["sgd"]
    config = from_unit(arm.parameters, [0.0] * len(arm.parameters))
    assert split(config).task == {"batch_size": 32, "model": "mlp", "width": 16}


def test_the_optimizers_argument_comes_first() -> None:
    warm = {"optimizer": "tests.tasks.Warm"}
    s = sweep(arms={"warm": warm, "sgd": {}}, parameters={"warmup": {"values": [0.0, 0.1]}})
    assert "warmup" in found(s, "warm")
    assert found(s, "sgd").keys() == {"lr"}
    s = sweep(arms={"warm": warm, "sgd": {}}, parameters={"training.warmup": {"values": [0.0, 0.1]}})
    assert found(s, "warm").keys() == found(s, "sgd").keys() == {"lr", "training.warmup"}


def test_an_arm_may_search_what_the_file_fixes_for_the_others() -> None:
    s = sweep(arms={"sgd": {"parameters": {"training.clip_norm": {"values": [0, 1.5]}}}, "sam": {}})
    assert "training.clip_norm" in found(s, "sgd")
    assert "training.clip_norm" not in found(s, "sam")
    s = sweep(task={"name": "digits", "width": 32}, arms={"sgd": {"parameters": {"task.width": 64}}, "sam": {}})
    assert s.task.parameters["width"] == 32


def test_what_is_at_its_default_is_in_no_id() -> None:
    assert "width" not in sweep().task.parameters
    assert "groups" not in model.definition(sweep())["arms"]["sgd"]
    ids = {model.sweep_id(sweep(parameters={"task.width": {"values": v}})) for v in ([16, 32], [16, 64])}
    assert len(ids) == 2
    orders = ({"a": {"match": ["1.*"], "lr": 0.1}, "b": {"match": ["*.bias"], "lr": 0.2}},)
    turned = dict(reversed(orders[0].items()))
    mlp = {"name": "digits", "model": "mlp"}
    assert model.sweep_id(sweep(task=mlp, groups=orders[0])) != model.sweep_id(sweep(task=mlp, groups=turned))


def test_values_of_every_kind() -> None:
    given = {
        "betas": {"values": [[0.9, 0.95], [0.9, 0.999]]},
        "amsgrad": {"values": [True, False]},
        "foreach": {"values": [None, True]},
        "eps": 1e-8,
    }
    s = sweep(arms={"adam": {"optimizer": "torch.optim.Adam", "parameters": given}})
    assert found(s, "adam")["betas"].values == ([0.9, 0.95], [0.9, 0.999])
    assert found(s, "adam")["foreach"].values == (None, True)
    for one in ([0.9, 0.95], {"value": [0.9, 0.95]}):
        s = sweep(arms={"adam": {"optimizer": "torch.optim.Adam", "parameters": {"betas": one}}})
        assert found(s, "adam")["betas"] == Parameter(name="betas", kind="constant", values=([0.9, 0.95],))
    assert json.loads(json.dumps(model.definition(s)))["arms"]["adam"]["parameters"]


def test_groups_of_an_arm_come_first_and_shared_ones_are_for_those_that_have_them() -> None:
    s = sweep(
        task={"name": "digits", "model": "mlp"},
        arms={"sgd": {}, "sam": {"groups": {"first": {"match": ["1.*"], "sam_radius": {"values": [0, 0.1]}}}}},
        groups={
            "biases": {"match": ["*.bias"], "weight_decay": 0, "lr": {"min": 0.1, "max": 0.5}},
            "last": {"match": ["5.*"], "momentum": 0.5},
        },
    )
    assert list(s.arms["sam"].groups) == ["first", "biases", "last"]
    assert list(s.arms["sgd"].groups) == ["biases", "last"]
    assert found(s)["groups.biases.lr"].high == 0.5
    rows = plan.plan(s).arms
    assert rows["sgd"].groups == {
        "biases": GroupSize(tensors=3, weights=522), "last": GroupSize(tensors=1, weights=2560),
        "the others": GroupSize(tensors=2, weights=64 * 256 + 256 * 256),
    }  # fmt: skip
    assert rows["sam"].groups["first"] == GroupSize(tensors=2, weights=64 * 256 + 256)


def test_schedules_are_searched_field_by_field() -> None:
    ramp = {"schedule": "step", "start": 0, "end": {"min": 0.01, "max": 0.1}, "until": {"values": ["25%", 0.5]}}
    s = sweep(arms={"sgd": {}, "sam": {"parameters": {"sam_radius": ramp}}})
    names = ["sam_radius.schedule", "sam_radius.start", "sam_radius.end", "sam_radius.until"]
    assert [p.name for p in s.arms["sam"].parameters if p.name.startswith("sam")] == names
    config = from_unit(s.arms["sam"].parameters, [0.0] * 5)
    assert split(config).ramps == {"sam_radius": {"schedule": "step", "start": 0, "end": 0.01, "until": 0.25}}
    shared = sweep(parameters={"sam_radius": 0.05}, arms={"sgd": {}, "sam": {"parameters": {"sam_radius": ramp}}})
    assert "sam_radius" not in found(shared, "sam")


def test_a_ramp_of_a_refresh_interval_is_planned_over_its_way() -> None:
    ends = {"start": 5, "end": 50}
    rows = {}
    for key, value in (("least", 5), ("most", 50), ("ramp", {"schedule": "linear", **ends})):
        s = sweep(arms={"sgd": {}, "llqr": {"parameters": {"refresh_interval": value}}})
        rows[key] = plan.plan(s).arms["llqr"].steps
    assert rows["least"] < rows["ramp"] < rows["most"]


def test_batches_of_other_sizes_in_the_plan() -> None:
    sizes = {"batch_size": {"values": [32, 128]}}
    row = plan.plan(sweep(parameters=sizes)).arms["sgd"]
    assert row.per_batch == (32, 128)
    tokens = {"unit": "tokens", "per_trial": 12_800, "trials_per_arm": 4}
    row = plan.plan(sweep(parameters=sizes, budget=tokens)).arms["sgd"]
    assert row.grad_evals_per_trial == [100, 400]


def codes(**changes: Any) -> dict[str, str]:
    return {f.code: f.message for f in lint(text(**changes), "FILE") if f.code in ("GS102", "GS110", "GS116")}


def test_fairness_rules_know_what_is_searched_of_task_and_training() -> None:
    assert codes() == {}
    width, warmup = {"task.width": {"values": [16, 32]}}, {"training.warmup": {"values": [0, 0.1]}}
    assert codes(parameters={**width, **warmup}) == {}
    one = codes(arms={"sgd": {"parameters": {**width, **warmup}}, "sam": {}})
    assert one.keys() == {"GS110", "GS116"}
    assert "task.width is given in sgd and not in sam" in one["GS116"]
    fixed = {"sgd": {"parameters": {"training.precision": "bf16"}}, "sam": {"parameters": {"precision": "fp32"}}}
    assert "training.precision is given in sgd, sam, unequally" in codes(arms=fixed)["GS110"]
    assert "32 to 128 examples" in codes(parameters={"batch_size": {"values": [32, 128]}})["GS102"]
    assert codes(
        parameters={"batch_size": {"values": [32, 128]}},
        budget={"unit": "tokens", "per_trial": 25_600, "trials_per_arm": 4},
    ) == {}  # fmt: skip
    assert "task.noise decides the data" in codes(parameters={"task.noise": {"values": [0.0, 0.4]}})["GS116"]


def test_a_population_moves_neither_task_nor_recipe() -> None:
    given = {"task.width": {"min": 16, "max": 64}, "training.warmup": {"min": 0, "max": 0.1}}
    s = sweep(parameters=given, method={"name": "random"}, early_terminate={"type": "pbt", "eta": 2})
    arm = s.arms["sgd"]
    parent = from_unit(arm.parameters, [0.5] * len(arm.parameters))
    children = [space_of(s, arm).explore(parent, random.Random(i)) for i in range(20)]
    assert all(child[key] == parent[key] for child in children for key in given)
    assert any(child["lr"] != parent["lr"] for child in children)


def test_guesses_and_conditions_speak_of_the_budget_as_values_do() -> None:
    s = sweep(
        arms={"sam": {}},
        parameters={
            "warmup": {"values": [0, "5%", 20], "prior": "5%"},
            "training.final_lr": {"min": 0, "max": "50%", "prior": "10%"},
            "clip_norm": {"values": [1, 2], "when": {"warmup": ["5%", 20]}},
            "sam_radius": {
                "schedule": "linear",
                "start": 0,
                "end": 0.1,
                "until": {"values": ["25%", "50%"], "prior": "50%"},
            },
            "weight_decay": {"values": [0, 0.1], "prior": 0.0, "when": {"sam_radius.until": "25%"}},
        },
    )
    p = found(s, "sam")
    assert [p[f"training.{name}"].prior for name in ("warmup", "final_lr")] == [0.05, 0.1]
    assert p["training.clip_norm"].when == {"training.warmup": (0.05, 0.1)}
    assert (p["sam_radius.until"].prior, p["weight_decay"].prior) == (0.5, 0)
    assert p["weight_decay"].when == {"sam_radius.until": (0.25,)}
    draw = random.Random(0)
    configs = [from_unit(s.arms["sam"].parameters, [draw.random() for _ in p]) for _ in range(100)]
    for config in configs:
        assert ("training.clip_norm" in config) == (config["training.warmup"] in (0.05, 0.1))
        assert ("weight_decay" in config) == (config["sam_radius.until"] == 0.25)
