"""What a task is: data, model, loss and metrics. The training loop and users' own tasks meet here.

A task is a class whose constructor takes the task's own parameters as keywords (they come from the `task:` key of a
sweep file). Everything that depends on chance is a function of (seed, index) alone, never of hidden state: that
makes seeds paired across optimizers and a resumed run identical to an uninterrupted one. Model and batches live on the
device where the task puts them; the bundled tasks stay on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from trainables.recipe import Recipe

Batch = Any
Model = nn.Module | list[nn.Module]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that a task reports."""

    goal: str
    """`minimize` or `maximize`."""
    worst: float
    """The finite value that stands for a diverged trial."""
    bounds: tuple[float, float] | None = None
    """Lowest and highest value that it can have, which no interval leaves; None: known by its name, or none."""


class Task:
    """Base class of all tasks. Required: METRICS, model, batch, loss, evaluate."""

    METRICS: ClassVar[Mapping[str, Metric]]
    """Metric name -> Metric, for every key that `evaluate` returns."""
    TABLE: ClassVar[tuple[str, ...]] = ()
    """Further metrics that the final table of arms shows, for instance a measured rate beside the one of theory."""
    FIGURES: ClassVar[frozenset[str]] = frozenset()
    """Figures of its kind that a report draws, by name: spectral-shape (a game whose J is normal, by `jacobian`),
    spectrum and suboptimality (a model with `modes` and a `spectrum`), exponents (seeds that draw the spectrum)."""
    GAME: ClassVar[bool] = False
    """Whether the model is a list of players, and the closure returns one loss for each."""
    FREE: ClassVar[frozenset[str] | None] = None
    """Parameters that leave the question as it is (model, batch size), so that arms may each search their own. The
    others decide the data or what the metrics mean: who chose them would choose what is asked. None: nobody knows."""
    LATER: ClassVar[Mapping[str, Any]] = {}
    """Parameters that the task got after sweeps of it were run, with their defaults: at these they are in no record, so
    that those sweeps keep their ids."""
    COUNTS: ClassVar[str] = ""
    """What `tokens_per_batch` counts: tokens, or examples of a task that has no tokens. Empty: nothing, and then no
    budget can be in tokens."""
    SCHEDULE: ClassVar[str] = "cosine"
    """Learning rate over the budget: cosine, linear, constant, step or inverse_sqrt (see `schedule.factor`)."""
    RECIPE: ClassVar[Recipe] = Recipe()
    """How this task is usually trained. A sweep file's `training:` changes it key by key; what results is recorded."""
    readers: int = 0
    """Threads that prepare batches ahead (`read_ahead`)."""
    divergence_loss: float = 1e4
    """A training loss above this (or not finite) ends the trial as DIVERGED."""

    def recipe(self, **changes: Any) -> Recipe:
        """The task's recipe with `changes`. Raises ValueError naming a bad field."""
        return replace(self.RECIPE, **{"schedule": self.RECIPE.schedule or self.SCHEDULE, **changes})

    @classmethod
    def check_recipe(cls, recipe: Recipe) -> None:
        """Raise ValueError, naming the field, for what a task that computes its gradient itself cannot be given."""
        if cls.closure is Task.closure:
            return
        plain = Recipe()
        for key in ("precision", "accumulate", "clip_norm", "compile"):
            if getattr(recipe, key) != getattr(plain, key):
                raise ValueError(f"{key} is {getattr(recipe, key)}, but {cls.__name__} computes its gradient itself")

    def model(self, seed: int) -> Model:
        """A freshly initialised model (games: a list with one module per player), the same for the same seed."""
        raise RuntimeError(f"{type(self).__name__} has no model()")

    def batch(self, seed: int, index: int) -> Batch:
        """Training batch number `index`, a function of (seed, index) alone. Usually `(inputs, targets)`."""
        raise RuntimeError(f"{type(self).__name__} has no batch()")

    def read_ahead(self, readers: int) -> None:
        """Have training batches prepared by so many threads, `readers` from now on; 0 ends them.

        For tasks that read or decode: `trainables.data.prefetch.Prefetch` does it. Others make batches in the step.
        """

    def tokens_per_batch(self) -> int:
        """What a nominal batch holds of what COUNTS names; a language model: windows x tokens in each."""
        raise RuntimeError(f"{type(self).__name__} counts no tokens")

    def refresh_batch(self, seed: int, index: int) -> Batch:
        """Batch for refreshing a preconditioner, from a stream of its own, so that arms keep the same data order."""
        return self.batch(seed + 1_000_003, index)

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """Mean loss of the model's outputs, a scalar."""
        raise RuntimeError(f"{type(self).__name__} has no loss()")

    def terms(self, targets: Any) -> float:
        """How many terms `loss` is the mean of: the weight of a piece of a batch. Override where targets are masked."""
        return float(len(targets))

    def closure(self, model: Model, batch: Batch, zero_grad: Callable[[], None]) -> Callable[[], Any]:
        """One gradient evaluation: clears the gradients, computes the loss, calls backward, returns the loss.

        Games override this: their closure returns one loss per player and does not call backward. For all other tasks
        the loop computes the same gradient in its own way (`trainables.gradient`: precision, pieces, workers, clips).
        """
        assert isinstance(model, nn.Module)
        inputs, targets = batch

        def evaluate() -> Tensor:
            zero_grad()
            loss = self.loss(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        return evaluate

    def evaluate(self, model: Model) -> dict[str, float]:
        """Metrics of the model as it stands, for instance {"accuracy/val": 0.93}. The loop sets evaluation mode.

        Gradients are off, but for games.
        """
        raise RuntimeError(f"{type(self).__name__} has no evaluate()")

    def facts(self) -> Mapping[str, str]:
        """What a result depends on beside code and parameters, recorded with every trial: a data set's SHA-256."""
        return {}

    def batch_identity(self, seed: int, index: int) -> bytes:
        """Bytes that identify batch `index`: sample indices and labels. Pairing is proved by a digest of them."""
        raise RuntimeError(f"{type(self).__name__} has no batch_identity()")
