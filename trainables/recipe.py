"""How a task is trained, whatever the optimizer: the `training:` section of a sweep file.

Each key is declared once, as a field of `Recipe` with its `Key`: what it means and may be. The check below, the sweep
file's types, help, and JSON Schema, and the edges of its values are made from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from trainables import schedule as schedules

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
AUTO = "auto"
INF = float("inf")


@dataclass(frozen=True, kw_only=True)
class Key:
    """What a key of the recipe means and may be: words, a number, or either."""

    description: str
    words: tuple[bool | str, ...] = ()
    same: Mapping[str, bool] = field(default_factory=dict)
    """Word -> the older value that means the same, which records contain."""
    least: float | None = None
    """Lowest number; None: words only."""
    most: float = INF
    open: bool = False
    """The number must be below `most`, not at it."""
    unit: Literal["", "share", "budget"] = ""
    """share: files may give a percentage; budget: and an amount of the budget, too."""
    counts: str = ""
    """What an integer counts; empty: not an integer."""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest meaningful value, at which an optimum is not at an edge; None for words."""
        return None if self.least is None else (self.least, self.most)

    def allows(self, value: Any) -> bool:
        """Whether a recipe may have this value."""
        if value in self.words:
            return True
        if self.least is None or isinstance(value, str):
            return False
        return bool(self.least <= value < self.most or (value == self.most < INF and not self.open))

    def demand(self) -> str:
        """What a value must be, after a semicolon."""
        if self.least is None:
            names = [str(word).lower() for word in self.words]
            plain = all(isinstance(word, str) for word in self.words)
            return f"available: {', '.join(names)}" if plain else f"it must be {', '.join(names[:-1])} or {names[-1]}"
        if self.most < INF:
            return f"it must lie in [{self.least:g}, {self.most:g}{')' if self.open else ']'}"
        return f"it must be {self.least:g} or more{''.join(f', or {word}' for word in self.words)}"


def _key(default: Any, description: str, **allowed: Any) -> Any:
    return field(default=default, metadata={"key": Key(description=description, **allowed)})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Checked on construction: ValueError names the field."""

    schedule: str = _key(
        "",
        "Learning rate over the budget: cosine, linear, constant, step or inverse_sqrt.",
        words=schedules.NAMES,
    )
    """Empty: the task's SCHEDULE."""
    warmup: float = _key(0.0, "Linear warm-up: a share of the budget.", unit="budget", least=0, most=1, open=True)
    final_lr: float = _key(
        0.0, "cosine and linear end at this share of the peak learning rate.", unit="share", least=0, most=1
    )
    precision: str = _key(
        "fp32",
        "Of forward and backward passes: tf32 on GPUs, bf16 and fp16 by autocast, fp16 with a scaled loss; weights "
        "stay float32.",
        words=PRECISIONS,
    )
    """Of training only (`trainables.precision`)."""
    accumulate: int | str = _key(
        1,
        "Cut each nominal batch into this many pieces; the gradient stays that of the batch. auto: the fewest of 1, 2, "
        "4, ... that fit into the memory of the trial's GPU.",
        words=(AUTO,),
        least=1,
        counts="pieces",
    )
    """A gradient evaluation remains one nominal batch."""
    clip_norm: float = _key(0.0, "Bound on the norm of the gradient that moves the weights; 0: none.", least=0)
    """The global norm, of the gradient used by the step, never of one that only perturbs."""
    weight_average: float = _key(
        0.0,
        "Evaluate a running mean of the weights with this decay; 0: the weights themselves.",
        least=0,
        most=1,
        open=True,
    )
    compile: bool | str = _key(
        False,
        "Use torch.compile. true or model: on the model; step: on the model with its loss in one graph. Optimizer "
        "updates are not compiled.",
        words=(True, False, "model", "step"),
        same={"model": True},
    )

    def __post_init__(self) -> None:
        for name, key in KEYS.items():
            value = getattr(self, name)
            if not key.allows(value) and not (name == "schedule" and value == ""):
                raise ValueError(f"{name} is {value!r}; {key.demand()}")
        if self.final_lr and self.schedule and self.schedule not in schedules.TO_A_FLOOR:
            raise ValueError(f"final_lr is {self.final_lr}, but only {' and '.join(schedules.TO_A_FLOOR)} use it")


KEYS: Mapping[str, Key] = {one.name: one.metadata["key"] for one in fields(Recipe)}
