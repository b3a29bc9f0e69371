"""How far it is proved that a trial was paired with others, and that it got its budget: what its process showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PROVED, DECLARED, UNKNOWN = "proved", "declared", "unknown"


@dataclass(kw_only=True)
class Shown:
    """What a run has shown so far."""

    seed: bool = False
    """A seed was handed over: as an argument, or the script asked for it."""
    budget: str = ""
    """given: it was handed over; kept: the run was ended there; empty: neither."""
    init: str = ""
    """Digest of the weights before the first step."""
    data: str = ""
    """Digest of the first batches."""
    batches: int = 0
    grad_evals: float = 0.0
    """Counted in its process: backward passes, or what an optimizer of ours charged; 0: none were seen."""
    steps: int = 0
    """Steps of its optimizers."""
    notes: list[str] = field(default_factory=list)

    def hear(self, said: Mapping[str, Any]) -> None:
        """Take in a line of the channel."""
        self.init = str(said.get("init", self.init))
        if "data" in said:
            self.data, self.batches = str(said["data"]), int(said.get("batches", 0))
        self.seed |= bool(said.get("seed"))
        if said.get("budget"):
            self.budget = "given"

    def document(self) -> dict[str, Any]:
        """As it is kept with the trial's result.

        Where fewer backward passes than steps were seen, others were not: gradients are not counted.
        """
        whole = self.grad_evals and self.grad_evals >= self.steps
        return {
            "seed": self.seed,
            "budget": self.budget,
            "batches": self.batches,
            "grad_evals": self.grad_evals if whole else None,
            "steps": self.steps or None,
        }
