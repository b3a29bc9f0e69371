"""The Task interface: data, model, loss and metrics, shared by the training loop and users' own tasks.

A task is a class whose constructor takes the task's parameters as keywords (from the `task:` key of a sweep file).
Everything random is a function of (seed, index) alone, never of hidden state: that pairs seeds across optimizers and
makes a resumed run identical to an uninterrupted one. Model and batches are on the device chosen by the task; the
bundled tasks stay on the CPU.
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
    """A number reported by a task."""

    goal: str
    """`minimize` or `maximize`."""
    worst: float
    """The finite value used for a diverged trial."""
    bounds: tuple[float, float] | None = None
    """Lowest and highest possible value, to which intervals are clipped; None: known by its name, or unbounded."""


class Task:
    """Base class of all tasks. Required: METRICS, model, batch, loss, and evaluate or scores."""

    METRICS: ClassVar[Mapping[str, Metric]]
    """Metric name -> Metric, for every key that `evaluate` returns.

    `loss/train`, if declared here, is the training loop's: the mean loss over the steps since the last evaluation.
    """
    TABLE: ClassVar[tuple[str, ...]] = ()
    """Additional metrics shown in the final table of arms, for example a measured rate next to the predicted one."""
    FIGURES: ClassVar[frozenset[str]] = frozenset()
    """Task-specific figures of a report, by name: spectral-shape (a game with normal J, by `jacobian`), spectrum and
    suboptimality (a model with `modes` and a `spectrum`), exponents (seeds that draw the spectrum).
    """
    GAME: ClassVar[bool] = False
    """Whether the model is a list of players, and the closure returns one loss for each."""
    FREE: ClassVar[frozenset[str] | None] = None
    """Parameters that do not change the question (model, batch size), so arms may each search their own. The others
    determine the data or the meaning of the metrics: choosing them would change what is asked. None: unknown.
    """
    LATER: ClassVar[Mapping[str, Any]] = {}
    """Parameters added after sweeps of the task had been run, with their defaults: at the defaults they are not
    recorded, so those sweeps keep their ids.
    """
    COUNTS: ClassVar[str] = ""
    """What `tokens_per_batch` counts: tokens, or examples for a task without tokens. Empty: nothing; then budgets
    cannot be in tokens.
    """
    SCHEDULE: ClassVar[str] = "cosine"
    """Learning rate over the budget: cosine, linear, constant, step or inverse_sqrt (see `schedule.factor`)."""
    RECIPE: ClassVar[Recipe] = Recipe()
    """How this task is usually trained. A sweep file's `training:` changes it key by key; the result is recorded."""
    readers: int = 0
    """Threads that prefetch batches (`read_ahead`)."""
    divergence_loss: float = 1e4
    """A training loss above this (or not finite) ends the trial as DIVERGED."""

    def recipe(self, **changes: Any) -> Recipe:
        """The task's recipe with `changes`. Raises ValueError naming a bad field."""
        return replace(self.RECIPE, **{"schedule": self.RECIPE.schedule or self.SCHEDULE, **changes})

    @classmethod
    def check_recipe(cls, recipe: Recipe) -> None:
        """Raise ValueError, naming the field, for settings that a task computing its own gradient cannot support."""
        if cls.closure is Task.closure:
            return
        plain = Recipe()
        for key in ("precision", "accumulate", "clip_norm", "compile"):
            if getattr(recipe, key) != getattr(plain, key):
                raise ValueError(f"{key} is {getattr(recipe, key)}, but {cls.__name__} computes its gradient itself")

    def model(self, seed: int) -> Model:
        """A freshly initialized model (games: a list with one module per player), the same for the same seed."""
        raise RuntimeError(f"{type(self).__name__} has no model()")

    def batch(self, seed: int, index: int) -> Batch:
        """Training batch number `index`, a function of (seed, index) alone. Usually `(inputs, targets)`."""
        raise RuntimeError(f"{type(self).__name__} has no batch()")

    def read_ahead(self, readers: int) -> None:
        """Prefetch training batches with `readers` threads from now on; 0 ends them.

        For tasks that read or decode data: `trainables.data.prefetch.Prefetch` does it. Others make batches in the
        step.
        """

    def tokens_per_batch(self) -> int:
        """The number of items named by COUNTS in a nominal batch; for a language model: windows x tokens per window."""
        raise RuntimeError(f"{type(self).__name__} counts no tokens")

    def refresh_batch(self, seed: int, index: int) -> Batch:
        """Batch for refreshing a preconditioner, from a separate stream, so that arms keep the same data order."""
        return self.batch(seed + 1_000_003, index)

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """Mean loss of the model's outputs, a scalar."""
        raise RuntimeError(f"{type(self).__name__} has no loss()")

    def terms(self, targets: Any) -> float:
        """Number of terms that `loss` averages: the weight of a piece of a batch. Override it if targets are masked."""
        return float(len(targets))

    def closure(self, model: Model, batch: Batch, zero_grad: Callable[[], None]) -> Callable[[], Any]:
        """One gradient evaluation: clears the gradients, computes the loss, calls backward, returns the loss.

        Games override this: their closure returns one loss per player and does not call backward. For all other tasks
        the loop computes the same gradient itself (`trainables.gradient`: precision, pieces, workers, clipping).
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
        """Metrics of the current model, for example {"accuracy/val": 0.93}. The loop sets evaluation mode.

        Gradients are disabled, except for games. By default, the `scores` as numbers.
        """
        if type(self).scores is Task.scores:
            raise RuntimeError(f"{type(self).__name__} has no evaluate()")
        return {name: float(score) for name, score in self.scores(model).items()}

    def scores(self, model: Model) -> dict[str, Tensor]:
        """The same as scalar tensors, computed without looking at numbers (`float`, `item`, `if`).

        A task that implements this instead of `evaluate` is evaluated once for all trials of a pack that have the same
        seed, with `torch.vmap` over their weights.
        """
        raise RuntimeError(f"{type(self).__name__} has no scores()")

    def facts(self) -> Mapping[str, str]:
        """What a result depends on besides code and parameters, recorded with every trial: a data set's SHA-256."""
        return {}

    def batch_identity(self, seed: int, index: int) -> bytes:
        """Bytes that identify batch `index`: sample indices and labels. Their digest proves pairing."""
        raise RuntimeError(f"{type(self).__name__} has no batch_identity()")
