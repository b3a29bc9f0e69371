"""Sweep files for tests of the machinery."""

from __future__ import annotations

from typing import Any

TEXT = """
schema_version: 1
name: {name}
task: {{name: "tests.tasks:Fit", pause_s: {pause_s}, fail_at: {fail_at}, fail_seed: {fail_seed}}}
metric: {{name: loss/val, goal: minimize}}
arms:
  sgd: {{optimizer: sgd, parameters: {{lr: {{distribution: log_uniform_values, min: 0.01, max: {max_lr}}}}}}}
  adamw: {{optimizer: adamw, parameters: {{lr: {{distribution: log_uniform_values, min: 0.01, max: 0.3}}}}}}
method: {{name: {method}, seed: 3, random_share: 0.5}}
budget: {{unit: grad_evals, per_trial: {per_trial}, trials_per_arm: {trials}{wall_clock}}}
seeds: {{tune: 1, confirm: {confirm}}}
evaluations: 4
max_failed: {max_failed}
{extra}"""
DEFAULTS: dict[str, Any] = {
    "name": "fit",
    "pause_s": 0.0,
    "fail_at": -1,
    "fail_seed": -1,
    "max_lr": 0.3,
    "method": "tpe",
    "per_trial": 40,
    "trials": 4,
    "confirm": 3,
    "max_failed": 0,
    "wall_clock": "",
    "extra": "",
}


def sweep_text(**changes: Any) -> str:
    """A sweep over two arms of a task that trains in milliseconds."""
    return TEXT.format(**{**DEFAULTS, **changes})
