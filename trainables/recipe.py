"""How a task is trained, whatever the optimizer: the `training:` section of a sweep file."""

from __future__ import annotations

from dataclasses import dataclass

from trainables import schedule as schedules

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
COMPILED = (False, True, "model", "step")
AUTO = "auto"
INF = float("inf")
BOUNDS = {"warmup": (0.0, 1.0), "final_lr": (0.0, 1.0), "accumulate": (1.0, INF), "clip_norm": (0.0, INF),
          "weight_average": (0.0, 1.0)}  # fmt: skip
"""Field -> lowest and highest meaningful value: an optimum there is not at an edge."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Checked on construction: ValueError names the field."""

    schedule: str = ""
    """cosine, linear, constant, step or inverse_sqrt; empty: the task's SCHEDULE."""
    warmup: float = 0.0
    """Share of the budget over which the learning rate rises linearly, in [0, 1)."""
    final_lr: float = 0.0
    """Share of the peak learning rate at which cosine and linear end, in [0, 1]."""
    precision: str = "fp32"
    """fp32, tf32, bf16 or fp16, for forward and backward passes in training (`trainables.precision`)."""
    accumulate: int | str = 1
    """Pieces that a nominal batch is split into, processed one after another; a gradient evaluation remains one nominal
    batch. auto: the smallest of 1, 2, 4, ... that fits the device's memory.
    """
    clip_norm: float = 0.0
    """Maximum global norm of the gradient used by the step, never of one that only perturbs; 0: no limit."""
    weight_average: float = 0.0
    """Decay of the running mean of the weights that is evaluated instead of them, in [0, 1); 0: the weights
    themselves.
    """
    compile: bool | str = False
    """Train with torch.compile: True or `model`, the model alone; `step`, also its loss in the same graph, so that
    forward and backward pass are compiled as one. The optimizer's update is never compiled.
    """

    def __post_init__(self) -> None:
        if self.schedule and self.schedule not in schedules.NAMES:
            raise ValueError(f"schedule is {self.schedule!r}; available: {', '.join(schedules.NAMES)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; available: {', '.join(PRECISIONS)}")
        for name, value in (("warmup", self.warmup), ("weight_average", self.weight_average)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}; it must lie in [0, 1)")
        if not 0 <= self.final_lr <= 1:
            raise ValueError(f"final_lr is {self.final_lr}; it must lie in [0, 1]")
        if self.final_lr and self.schedule and self.schedule not in schedules.TO_A_FLOOR:
            raise ValueError(f"final_lr is {self.final_lr}, but only {' and '.join(schedules.TO_A_FLOOR)} use it")
        if self.accumulate != AUTO and (isinstance(self.accumulate, str) or self.accumulate < 1):
            raise ValueError(f"accumulate is {self.accumulate!r}; it must be 1 or more, or auto")
        if self.compile not in COMPILED:
            raise ValueError(f"compile is {self.compile!r}; it must be true, false, model or step")
        if not 0 <= self.clip_norm < INF:
            raise ValueError(f"clip_norm is {self.clip_norm}; it must be 0 (no limit) or above")
