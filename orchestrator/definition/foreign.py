"""Files and words of other systems, told from ours: what to run, or to write, instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OURS = {"schema_version", "arms", "task"}
"""No other system's file has one of these on top."""
OPTUNA_DISTRIBUTIONS = (
    *("FloatDistribution", "IntDistribution", "CategoricalDistribution"),
    *("UniformDistribution", "LogUniformDistribution", "DiscreteUniformDistribution"),
    *("IntUniformDistribution", "IntLogUniformDistribution"),
)
"""Optuna's names of today, and those that its older files have."""
WANDB_METHODS = ("bayes", "grid", "random")
WANDB_KEYS = {"program", "method", "parameters", "metric", "early_terminate", "command", "run_cap", "project", "entity"}
RAY_KEYS = {"run", "config", "num_samples", "resources_per_trial", "stop", "param_space", "time_budget_s", "env"}
IMPORTED = "imported"
"""The key that the record of imported results has on top, in place of a sweep."""


@dataclass(frozen=True)
class System:
    """Whose file it is."""

    word: str
    """What `geosweep convert` calls it."""
    title: str


WANDB, KATIB = System("wandb", "a sweep of W&B"), System("katib", "an Experiment of Katib")
OPTUNA, RAY = System("optuna", "a search space of Optuna"), System("ray", "an experiment of Ray Tune")


def system(value: Any) -> System | None:
    """Whose file this is, or None when it is ours or nobody's."""
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
    if value.keys() & {"param_space", "tune_config"} or (
        inner and all(isinstance(one, Mapping) and len(one.keys() & RAY_KEYS) >= 2 for one in inner)
    ):
        return RAY
    return None


def optuna_space(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The search space in a file of Optuna's: the file itself, or what stands under `search_space`."""
    for key in ("search_space", "search-space"):
        if isinstance(value.get(key), Mapping):
            value = value[key]
    named = [isinstance(one, Mapping) and one.get("name") in OPTUNA_DISTRIBUTIONS for one in value.values()]
    return value if named and all(named) else None


def advice(found: System, file: str) -> str:
    """What the error says of a file of another system."""
    return f"is {found.title}, not a sweep of ours; turn it into one: geosweep convert {found.word} {file} -o NEW.yaml"


WORDS: Mapping[tuple[str, ...], Mapping[str, str]] = {
    (): {
        "run_cap": "W&B's word; write budget: {trials_per_arm: N}",
        "program": "W&B's word; write task: {program: FILE}",
        "command": "W&B's word; write task: {program: FILE, command: [...]}",
        "project": "W&B's word; the sweep's name names its experiment in MLflow",
        "entity": "W&B's word; nobody owns a sweep here; remove it",
        "controller": "W&B's word; whoever calls `geosweep run` drives the sweep; remove it",
        "imports": "W&B's word; copy what the other file says into this one",
        "num_samples": "Ray's word; write budget: {trials_per_arm: N}",
        "max_concurrent_trials": "Ray's word; write resources: {max_concurrent: N}",
        "time_budget_s": "Ray's word; write budget: {wall_clock: 30m}",
        "param_space": "Ray's word; write parameters, each with min and max, or values",
        "mode": "Ray's word; write metric: {name: NAME, goal: minimize}",
        "maxTrialCount": "Katib's word; write budget: {trials_per_arm: N}",
        "parallelTrialCount": "Katib's word; write resources: {max_concurrent: N}",
        "maxFailedTrialCount": "Katib's word; write max_failed: N",
        "objective": "Katib's word; write metric: {name: NAME, goal: minimize}",
        "algorithm": "Katib's word; write method: {name: NAME}",
        "n_trials": "Optuna's word; write budget: {trials_per_arm: N}",
        "direction": "Optuna's word; write metric: {name: NAME, goal: minimize}",
        "optimizer": "an arm has the optimizer; write arms: {NAME: {}}",
    },
    ("metric",): {
        "target": "W&B's word; a sweep is not ended at a value; give budget a limit instead",
        "mode": "Ray's word; write goal: minimize or maximize",
    },
    ("early_terminate",): {
        "min_iter": "W&B's word; write min_budget, a share of the budget such as 20%",
        "max_iter": "W&B's word; budget.per_trial is the last iteration",
        "s": "W&B's word; rungs follow from eta and min_budget",
        "strict": "W&B's word; remove it",
        "grace_period": "Ray's word; write min_budget, a share of the budget such as 20%",
        "reduction_factor": "Ray's word; write eta",
        "max_t": "Ray's word; budget.per_trial is the last iteration",
    },
    ("parameters",): {
        "probabilities": "W&B's word; every value is equally likely; remove it",
        "mu": "W&B's word; a parameter has a range: min and max",
        "sigma": "W&B's word; a parameter has a range: min and max",
        "feasibleSpace": "Katib's word; write min and max, or values",
        "grid_search": "Ray's word; write values, and method: {name: grid}",
        "low": "Optuna's word; write min",
        "high": "Optuna's word; write max",
        "choices": "Optuna's word; write values",
        "log": "Optuna's word; write distribution: log_uniform_values",
        "step": "Optuna's word; write q",
    },
}
"""Section of a sweep file -> unknown key -> what to write."""
CHOICES = {
    "bayes": "W&B's word; tpe (or gp) is the search by a model",
    "bayesianoptimization": "Katib's word; write gp",
    "multivariate-tpe": "Katib's word; write tpe",
    "min": "Ray's word; write minimize",
    "max": "Ray's word; write maximize",
    "medianstop": "Katib's word; write median",
}
"""Value that a list of choices lacks -> what to write."""
DISTRIBUTIONS = {
    "log_uniform": "takes exponents elsewhere and is refused; use log_uniform_values with plain values",
    "q_log_uniform": "takes exponents elsewhere and is refused; use q_log_uniform_values with plain values",
    "inv_log_uniform": "takes exponents elsewhere; use log_uniform_values from exp(-max) to exp(-min)",
    "inv_log_uniform_values": "has a uniform logarithm of 1/x, and so of x; use log_uniform_values",
    "normal": "has no bounds; use uniform with min and max, for instance mu - 2 sigma and mu + 2 sigma",
    "q_normal": "has no bounds; use q_uniform with min and max, for instance mu - 2 sigma and mu + 2 sigma",
    "log_normal": "has no bounds; use log_uniform_values from exp(mu - 2 sigma) to exp(mu + 2 sigma)",
    "q_log_normal": "has no bounds; use q_log_uniform_values from exp(mu - 2 sigma) to exp(mu + 2 sigma)",
    "beta": "is not drawn from here; use uniform from 0 to 1",
    "q_beta": "is not drawn from here; use q_uniform from 0 to 1",
    "categorical_w_probabilities": "weighs its values; every value is equally likely here: use categorical",
    "loguniform": "is Ray's word; use log_uniform_values",
    "logUniform": "is Katib's word; use log_uniform_values",
    "quniform": "is Ray's word; use q_uniform",
    "randint": "is Ray's word, and leaves its upper end out; use int_uniform",
    "choice": "is Ray's word; use values",
}
"""Name of a distribution elsewhere -> why it is none here, and what to write."""


def hint(path: tuple[str | int, ...]) -> str:
    """What to write instead of an unknown key, or nothing when no other system has it there."""
    key, above = str(path[-1]), tuple(part for part in path[:-1] if isinstance(part, str))
    section: tuple[str, ...] = ("parameters",) if "parameters" in above else above[:1]
    return WORDS.get(section, {}).get(key, "")
