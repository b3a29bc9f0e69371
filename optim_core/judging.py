"""Whether a step is taken: never along a gradient that is not finite; the host or the device finds out.

One policy for all optimizers: weights and state stay unchanged, `skipped_steps` counts, the first case is reported. On
a CPU the check is free. To learn it from a device, the host would have to wait for all pending work at every step; so
an optimizer with SELECTS leaves the decision to the device there (see `selection`) and continues.
"""

from __future__ import annotations

import warnings
from typing import ClassVar

import torch
from torch import Tensor

from optim_core.adjustable import Adjustable
from optim_core.fresh import finite
from optim_core.kernels import is_plain
from optim_core.selection import Late, at_hand, not_finite
from optim_core.sharded import is_sharded

COUNTER = "grad_evals"
SKIPPED = "skipped_steps"


class Judging(Adjustable, torch.optim.Optimizer):
    """The part of `Counting` that checks gradients and counts skipped steps."""

    SELECTS: ClassVar[bool] = False
    """Whether its step can skip a gradient that is not finite without the host: then nothing is read back except at the
    first step, which creates the state, and at refreshes.
    """
    checks_gradients = True
    """Whether a gradient that is not finite is kept from the weights. False: it reaches them, as with torch's
    optimizers, and methods without SELECTS read one number less back from a device per gradient.
    """
    selects: bool | None = None
    """Whether the device decides, for an optimizer with SELECTS. None: if the host would have to wait for it, so not on
    a CPU. The weights, the state and all counts are the same; but the second pass of SAM is taken even after a first
    gradient that is not finite, from the current weights, and a skipped step is reported with a later one.
    """
    _skipped: Tensor | None = None
    """Whether the current step is skipped, if the device decides (see `selection`)."""
    _decides: bool | None = None
    """Whether the device decides in the current step; None: not known yet."""

    @property
    def grad_evals(self) -> float:
        """Gradient evaluations spent so far."""
        return float(self.param_groups[0].get(COUNTER, 0.0))

    @property
    def skipped_steps(self) -> int:
        """Steps not taken because a gradient was not finite; read from the device if it decides."""
        self._settled()
        return int(self.param_groups[0].get(SKIPPED, 0))

    def _settled(self) -> None:
        """Counters as on the device, if it decided or compiled steps were taken (see `compiled`)."""
        self.__dict__.get("_settle", bool)()
        for (index, key), count in self._late.take().items():
            if key == SKIPPED:
                for _ in range(count):
                    self.skip()
            else:
                self.param_groups[index][key] -= count

    @property
    def _late(self) -> Late:
        found: Late | None = self.__dict__.get("_late_counts")
        if found is None:
            found = self.__dict__["_late_counts"] = Late()
        return found

    def counted(self, index: int, key: str) -> None:
        """Increment a counter of a parameter group; `_settled` subtracts what the device has skipped."""
        self.param_groups[index][key] += 1
        if self._skipped is not None:
            self._late.add(index, key, self._skipped)

    def skip(self) -> None:
        """Count a step that is not taken, and warn at the first one."""
        first = self.param_groups[0]
        first[SKIPPED] = count = int(first.get(SKIPPED, 0)) + 1
        if count == 1:
            warnings.warn(
                f"{type(self).__name__}: the gradient after {self.grad_evals:g} evaluations is not finite, so the "
                "step is not taken; training diverges, or a batch is corrupt. Further ones are only counted in "
                "skipped_steps",
                RuntimeWarning,
                stacklevel=3,
            )

    def takes_step(self) -> bool:
        """Whether the current gradients are finite, or not checked; also True if the device decides."""
        if not self.checks_gradients:
            return True
        if self.on_device():
            self.doubt(not_finite(self._present()))
            return True
        return finite(self._present(), look=self.SELECTS)

    def on_device(self) -> bool:
        """Whether the device decides if this step is taken. Known from its first gradient on."""
        if self._decides is None:
            self._decides = self.checks_gradients and self.SELECTS and self._could_decide(self._present())
        return self._decides

    def _could_decide(self, gradients: list[Tensor]) -> bool:
        wanted = self.selects if self.selects is not None else not all(at_hand(g) for g in gradients)
        if not wanted:
            return False
        params = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        if any(is_sharded(p) for p in params) or not all(map(is_plain, [*params, *gradients])):
            return False
        return not self.must_know()

    def must_know(self) -> bool:
        """Whether the host must know at once, because this step creates state. Methods add the steps at which they
        learn.
        """
        return any(
            p.grad is not None and p not in self.state and (g.get("momentum") != 0 or g.get("base", "sgd") != "sgd")
            for g in self.param_groups
            for p in g["params"]
        )

    def doubt(self, skipped: Tensor) -> None:
        """Give the device another possible reason to skip the step."""
        self._skipped = skipped if self._skipped is None else torch.maximum(self._skipped, skipped)

    def _present(self) -> list[Tensor]:
        return [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]

    def end_step(self) -> None:
        """Count the step if the device skips it."""
        if self._skipped is not None:
            self._late.add(0, SKIPPED, self._skipped)
            self._late.send(0, SKIPPED)
        self._skipped = self._decides = None
