"""Files and words of other systems, recognized as such: what to run, or to write, instead."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OURS = {"schema_version", "arms", "task"}
"""Top-level keys that no other system's file has."""
OPTUNA_DISTRIBUTIONS = (
    *("FloatDistribution", "IntDistribution", "CategoricalDistribution"),
    *("UniformDistribution", "LogUniformDistribution", "DiscreteUniformDistribution"),
    *("IntUniformDistribution", "IntLogUniformDistribution"),
)
"""Optuna's current names, and those in its older files."""
WANDB_METHODS = ("bayes", "grid", "random")
WANDB_KEYS = {"program", "method", "parameters", "metric", "early_terminate", "command", "run_cap", "project", "entity"}
RAY_KEYS = {"run", "config", "num_samples", "resources_per_trial", "stop", "param_space", "time_budget_s", "env"}
IMPORTED = "imported"
"""The top-level key of the record of imported results, which takes the place of a sweep file."""


@dataclass(frozen=True)
class System:
    """Whose file it is."""

    word: str
    """What `geosweep convert` calls it."""
    title: str


WANDB, KATIB = System("wandb", "a W&B sweep"), System("katib", "a Katib Experiment")
OPTUNA, RAY = System("optuna", "an Optuna search space"), System("ray", "a Ray Tune experiment")


def system(value: Any) -> System | None:
    """Whose file this is, or None when it is ours or unknown."""
    if not isinstance(value, Mapping) or value.keys() & OURS or IMPORTED in value:
        return None
    if str(value.get("apiVersion", "")).startswith("kubeflow.org/") and value.get("kind") == "Experiment":
        return KATIB
    if optuna_space(value):
        return OPTUNA
    if len(value.keys() & WANDB_KEYS) >= 2 and (
        value.get("method") in WANDB_METHODS or "program" in value or isinstance(value.get("parameters"), Mapping)
    ):
        return WANDB
    inner = list(value.values())
    if (
        value.keys() & {"param_space", "tune_config"}
        or len(value.keys() & RAY_KEYS) >= 2
        or (inner and all(isinstance(one, Mapping) and len(one.keys() & RAY_KEYS) >= 2 for one in inner))
    ):
        return RAY
    return None


def optuna_space(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The search space in an Optuna file: the file itself, or its `search_space`."""
    for key in ("search_space", "search-space"):
        if isinstance(value.get(key), Mapping):
            value = value[key]
    named = [isinstance(one, Mapping) and one.get("name") in OPTUNA_DISTRIBUTIONS for one in value.values()]
    return value if named and all(named) else None


def advice(found: System, file: str) -> str:
    """The error for a file of another system."""
    command = f"geosweep convert {found.word} {shlex.quote(file)} -o NEW.yaml"
    return f"is {found.title}, not a geosweep sweep; convert it: {command}"


WORDS: Mapping[tuple[str, ...], Mapping[str, str]] = {
    (): {
        "run_cap": "a W&B term; write budget: {trials_per_arm: N}",
        "program": "a W&B term; write task: {program: FILE}",
        "command": "a W&B term; write task: {program: FILE, command: [...]}",
        "project": "a W&B term; the sweep's name names its experiment in MLflow",
        "entity": "a W&B term; sweeps have no owner here; remove it",
        "controller": "a W&B term; `geosweep run` itself drives the sweep; remove it",
        "imports": "a W&B term; copy the other file's contents into this one",
        "num_samples": "a Ray term; write budget: {trials_per_arm: N}",
        "max_concurrent_trials": "a Ray term; write resources: {max_concurrent: N}",
        "time_budget_s": "a Ray term; write budget: {wall_clock: 30m}",
        "param_space": "a Ray term; write parameters, each with min and max, or values",
        "mode": "a Ray term; write metric: {name: NAME, goal: minimize}",
        "maxTrialCount": "a Katib term; write budget: {trials_per_arm: N}",
        "parallelTrialCount": "a Katib term; write resources: {max_concurrent: N}",
        "maxFailedTrialCount": "a Katib term; write max_failed: N",
        "objective": "a Katib term; write metric: {name: NAME, goal: minimize}",
        "algorithm": "a Katib term; write method: {name: NAME}",
        "n_trials": "an Optuna term; write budget: {trials_per_arm: N}",
        "direction": "an Optuna term; write metric: {name: NAME, goal: minimize}",
        "optimizer": "an arm has the optimizer; write arms: {NAME: {}}",
    },
    ("metric",): {
        "target": "a W&B term; a sweep does not stop at a target value; set a limit under budget instead",
        "mode": "a Ray term; write goal: minimize or maximize",
    },
    ("early_terminate",): {
        "min_iter": "a W&B term; write min_budget, a share of the budget such as 20%",
        "max_iter": "a W&B term; budget.per_trial is the last iteration",
        "s": "a W&B term; rungs follow from eta and min_budget",
        "strict": "a W&B term; remove it",
        "grace_period": "a Ray term; write min_budget, a share of the budget such as 20%",
        "reduction_factor": "a Ray term; write eta",
        "max_t": "a Ray term; budget.per_trial is the last iteration",
    },
    ("parameters",): {
        "probabilities": "a W&B term; every value is equally likely; remove it",
        "mu": "a W&B term; a parameter has a range: min and max",
        "sigma": "a W&B term; a parameter has a range: min and max",
        "feasibleSpace": "a Katib term; write min and max, or values",
        "grid_search": "a Ray term; write values, and method: {name: grid}",
        "low": "an Optuna term; write min",
        "high": "an Optuna term; write max",
        "choices": "an Optuna term; write values",
        "log": "an Optuna term; write distribution: log_uniform_values",
        "step": "an Optuna term; write q",
    },
}
"""Section of a sweep file -> unknown key -> what to write."""
CHOICES = {
    "bayes": "a W&B term; use tpe or gp, the model-based searches",
    "bayesianoptimization": "a Katib term; write gp",
    "multivariate-tpe": "a Katib term; write tpe",
    "min": "a Ray term; write minimize",
    "max": "a Ray term; write maximize",
    "medianstop": "a Katib term; write median",
}
"""Value that a list of choices lacks -> what to write."""
DISTRIBUTIONS = {
    "log_uniform": "takes exponents in other systems and is not accepted; use log_uniform_values with plain values",
    "q_log_uniform": "takes exponents in other systems and is not accepted; use q_log_uniform_values with plain values",
    "inv_log_uniform": "takes exponents in other systems; use log_uniform_values from exp(-max) to exp(-min)",
    "inv_log_uniform_values": "makes log(1/x) uniform, and so log(x); use log_uniform_values",
    "normal": "has no bounds; use uniform with min and max, for instance mu - 2 sigma and mu + 2 sigma",
    "q_normal": "has no bounds; use q_uniform with min and max, for instance mu - 2 sigma and mu + 2 sigma",
    "log_normal": "has no bounds; use log_uniform_values from exp(mu - 2 sigma) to exp(mu + 2 sigma)",
    "q_log_normal": "has no bounds; use q_log_uniform_values from exp(mu - 2 sigma) to exp(mu + 2 sigma)",
    "beta": "is not supported; use uniform from 0 to 1",
    "q_beta": "is not supported; use q_uniform from 0 to 1",
    "categorical_w_probabilities": "weighs its values; every value is equally likely here: use categorical",
    "loguniform": "is a Ray term; use log_uniform_values",
    "logUniform": "is a Katib term; use log_uniform_values",
    "quniform": "is a Ray term; use q_uniform",
    "randint": "is a Ray term, and excludes its upper end; use int_uniform",
    "choice": "is a Ray term; use values",
}
"""Name of a distribution elsewhere -> why it is not accepted here, and what to write."""


def hint(path: tuple[str | int, ...]) -> str:
    """What to write instead of an unknown key; empty when no other system has it there."""
    key, above = str(path[-1]), tuple(part for part in path[:-1] if isinstance(part, str))
    section: tuple[str, ...] = ("parameters",) if "parameters" in above else above[:1]
    return WORDS.get(section, {}).get(key, "")
