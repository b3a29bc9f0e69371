"""How far a trial's pairing and budget are proved, based on what its process showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROVED, DECLARED, UNKNOWN = "proved", "declared", "unknown"


@dataclass(kw_only=True)
class Shown:
    """What a run has shown so far."""

    seed: bool = False
    """A seed was passed on: as an argument, or the script asked for it."""
    budget: str = ""
    """given: it was passed on; kept: the run was ended there; empty: neither."""
    init: str = ""
    """Digest of the weights before the first step."""
    data: str = ""
    """Digest of the first batches."""
    batches: int = 0
    grad_evals: float = 0.0
    """Counted in its process: backward passes, or the charge of one of our optimizers; 0: none were seen."""
    steps: int = 0
    """Steps of its optimizers."""
    optimizer: bool = False
    """Whether the script requested the arm's optimizer."""
    unread: tuple[str, ...] = ()
    """Parameters that the script had not read when it last reported."""
    begun: bool = False
    """It continues from a checkpoint: digests are from the previous run, and what is hashed now is something else."""
    whole: bool = True
    """False if it continues in its own way, so that the counts of its runs do not add up."""

    def hear(self, said: Mapping[str, Any]) -> None:
        """Process a line of the channel."""
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
        """What a continuing run inherits from this one."""
        return {"init": self.init, "data": self.data, "batches": self.batches}

    def document(self, told: float | None = None) -> dict[str, Any]:
        """As stored with the trial's result. `told`: the last step that the script itself stated, if any.

        If fewer backward passes than steps were seen, some were missed: gradients are not counted.
        """
        whole = self.whole and self.grad_evals and self.grad_evals >= self.steps
        return {
            "seed": self.seed,
            "budget": self.budget,
            "batches": self.batches,
            "grad_evals": self.grad_evals if whole else None,
            "steps": self.steps if self.steps and self.whole else None,
            **({} if told is None else {"told": told}),
        }
