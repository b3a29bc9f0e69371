"""How far it is proved that a trial was paired with others, and that it got its budget: what its process showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
    optimizer: bool = False
    """It asked for the arm's optimizer."""
    unread: tuple[str, ...] = ()
    """Parameters that it had not looked at when it reported last."""
    begun: bool = False
    """It goes on from a checkpoint: digests are of the run before, and what is hashed now is something else."""
    whole: bool = True
    """False where it goes on in a way of its own, so that the counts of its runs do not add up."""

    def hear(self, said: Mapping[str, Any]) -> None:
        """Take in a line of the channel."""
        if not self.begun:
            self.init = str(said.get("init", self.init))
        if "data" in said and not self.begun:
            self.data, self.batches = str(said["data"]), int(said.get("batches", 0))
        self.seed |= bool(said.get("seed"))
        self.optimizer |= bool(said.get("optimizer"))
        if isinstance(said.get("unread"), list):
            self.unread = tuple(map(str, said["unread"]))
        if said.get("budget"):
            self.budget = "given"

    def digests(self) -> dict[str, Any]:
        """What a run that goes on with this one takes over."""
        return {"init": self.init, "data": self.data, "batches": self.batches}

    def document(self) -> dict[str, Any]:
        """As it is kept with the trial's result.

        Where fewer backward passes than steps were seen, others were not: gradients are not counted.
        """
        whole = self.whole and self.grad_evals and self.grad_evals >= self.steps
        return {
            "seed": self.seed,
            "budget": self.budget,
            "batches": self.batches,
            "grad_evals": self.grad_evals if whole else None,
            "steps": self.steps if self.steps and self.whole else None,
        }
