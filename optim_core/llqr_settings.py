"""LLQR's settings, the three presets, and the cost of a refresh. Pure arithmetic.

    default   ours: scale-free objective, curvature_scale 30 (U begins 30 times too long and is shortened where it is
              steep, which one batch teaches better than lengthening), full first refresh, a decrease check
    paper     the hyperparameter section of arXiv 2605.04230, as far as reported: E-Kronecker, 25 inner steps
    code      the authors' code release: diagonal, 50 inner steps, a refresh every 1000 steps

The published presets use the curvature summed over the batch for `ngd` and its mean for `newton`, and average slowly:
`ema_rate` 0.05 (ngd) or 0.1 (newton) is their 1 - 0.95 or 1 - 0.9. Every value of a preset can be overridden.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optim_core.curvature import METRICS, PRODUCT_COST
from optim_core.preconditioners import lookup
from optim_core.ranges import check_not_negative, check_positive, check_share, choice
from optim_core.relaxation import SCALES

MANY = 10_000
"""Rounds between refreshes that are counted one by one."""
APPLY_TO = ("gradient", "update")
ACTION_DTYPES = ("auto", "bfloat16")
_PUBLISHED: dict[str, Any] = {
    "curvature_scale": 1.0,
    "damping": 0.0,
    "first_refresh": 0,
    "first_refresh_full": False,
    "inner_momentum": 0.9,
    "inner_clip": 5.0,
    "n_grads": 1,
    "warm_start": True,
    "floor": 1e-8,
    "ceiling": float("inf"),
    "positive": False,
    "decrease_check": False,
    "factor_limit": 1 << 30,
}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "structure": "e_kronecker",
        "metric_scale": "normalised",
        "curvature_scale": 30.0,
        "damping": 1e-3,
        "refresh_interval": 200,
        "first_refresh": -1,
        "first_refresh_full": True,
        "ema_rate": 0.5,
        "inner_steps": 10,
        "inner_lr": 1e-3,
        "inner_momentum": 0.9,
        "inner_clip": 1.0,
        "n_grads": 1,
        "warm_start": True,
        "floor": 1e-3,
        "ceiling": 1e3,
        "positive": True,
        "decrease_check": True,
        "factor_limit": 1024,
    },
    "paper": {
        **_PUBLISHED,
        "structure": "e_kronecker",
        "refresh_interval": 500,
        "inner_steps": 25,
        "inner_lr": 5e-3,
    },
    "code": {
        **_PUBLISHED,
        "structure": "diagonal",
        "refresh_interval": 1000,
        "inner_steps": 50,
        "inner_lr": 1e-3,
    },
}
LOCAL = ("structure", "factor_limit")
"""Settings that may differ between parameter groups; all others apply to the whole optimizer."""


def resolve(preset: str, metric: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's values overridden by those of `given` that are not None, checked.

    Raises ValueError naming the setting, its value and the allowed values.
    """
    choice("preset", preset, PRESETS)
    choice("metric", metric, METRICS)
    found = dict(PRESETS[preset])
    if preset != "default":
        found["metric_scale"] = "sum" if metric == "ngd" else "mean"
        found["ema_rate"] = 0.05 if metric == "ngd" else 0.1
    found.update({key: value for key, value in given.items() if value is not None})
    check(found)
    return {"preset": preset, "metric": metric, **found}


def check(values: Mapping[str, Any]) -> None:
    """Raise ValueError for the first setting that is out of range."""
    lookup(values["structure"])
    choice("metric_scale", values["metric_scale"], SCALES)
    for name in ("refresh_interval", "inner_steps", "n_grads", "factor_limit"):
        _whole(name, values[name], 1)
    _whole("first_refresh", values["first_refresh"], -1)
    if not 0 <= values["ema_rate"] <= 1:
        raise ValueError(f"ema_rate is {values['ema_rate']}; it is the share of the newest solution, in [0, 1]")
    check_positive(**{k: values[k] for k in ("curvature_scale", "inner_lr", "inner_clip", "floor")})
    check_not_negative(damping=values["damping"])
    check_share(inner_momentum=values["inner_momentum"])
    if not values["floor"] < 1 < values["ceiling"]:
        raise ValueError(
            f"floor is {values['floor']} and ceiling {values['ceiling']}; floor < 1 < ceiling, because U begins at 1"
        )


def is_positive(values: Mapping[str, Any]) -> bool:
    """Whether U stays symmetric and positive with these settings."""
    kind = lookup(values["structure"])
    return kind.ALWAYS_POSITIVE or kind.ELEMENTWISE or (kind.POSITIVE_IF_CLAMPED and bool(values["positive"]))


def refresh_cost(values: Mapping[str, Any]) -> float:
    """Gradient evaluations per refresh: a gradient and, if normalised, one product for each of `n_grads` batches, plus
    a product for each inner step and for J before and after. 1.75 (T + 1) + 2.75 for one batch under `ngd`.
    """
    n, product = values["n_grads"], PRODUCT_COST[values["metric"]]
    setup = n * (1 + (product if values["metric_scale"] == "normalised" else 0))
    return float(setup + product * (values["inner_steps"] + 2 * n - 1))


def cost_per_step(gradients: float, hyperparameters: Mapping[str, Any]) -> float:
    """`gradients` of a step plus the refreshes, amortized; nothing is refreshed at `ema_rate` 0."""
    preset, metric = hyperparameters.get("preset", "default"), hyperparameters.get("metric", "ngd")
    known = {k: v for k, v in hyperparameters.items() if k in PRESETS["default"]}
    values = resolve(preset, metric, known)
    if values["ema_rate"] == 0:
        return gradients
    return gradients + refresh_cost(values) / int(values["refresh_interval"])


def steps_within(budget: float, gradients: float, hyperparameters: Mapping[str, Any]) -> int:
    """Steps of `gradients` each that the budget affords, with refreshes as they fall due.

    A refresh that no longer fits ends refreshing, as `freeze` does. A first refresh that waits for a model's running
    statistics (`first_refresh` -1) is assumed at step 0.
    """
    preset, metric = hyperparameters.get("preset", "default"), hyperparameters.get("metric", "ngd")
    values = resolve(preset, metric, {k: v for k, v in hyperparameters.items() if k in PRESETS["default"]})
    refresh, steps, due, left = refresh_cost(values), 0, max(0, int(values["first_refresh"])), budget + 1e-9
    while values["ema_rate"] > 0:
        plain = (due - steps) * gradients
        if left - plain < refresh + gradients:
            break
        left, steps, due = left - plain - refresh, due, due + int(values["refresh_interval"])
        round_cost = (due - steps) * gradients + refresh
        if left > MANY * round_cost:  # all rounds but the last at once
            rounds = int(left / round_cost) - MANY // 2
            left, steps = left - rounds * round_cost, steps + rounds * (due - steps)
            due = steps + int(values["refresh_interval"])
    return steps + int(left / gradients)


def _whole(name: str, value: Any, least: int) -> None:
    if int(value) != value or value < least:
        raise ValueError(f"{name} is {value}; it must be a whole number, {least} or above")
