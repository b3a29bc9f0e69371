"""Whether a step is taken: never along a gradient that is not finite, and who finds out, the host or the device.

One policy for all optimizers: the weights and the state stay as they were, `skipped_steps` counts, the first is said.
Finding out costs nothing on a CPU. To learn it from a device the host would wait for all that the device still has to
do, in every step; so an optimizer with SELECTS leaves it to the device there (see `selection`) and goes on.
"""

from __future__ import annotations

import warnings
from typing import ClassVar

import torch
from torch import Tensor

from optim_core.adjustable import Adjustable
from optim_core.fresh import finite
from optim_core.selection import Late, at_hand, is_plain, not_finite
from optim_core.sharded import is_sharded

COUNTER = "grad_evals"
SKIPPED = "skipped_steps"


class Judging(Adjustable, torch.optim.Optimizer):
    """The part of `Counting` that judges gradients and counts steps that are not taken."""

    SELECTS: ClassVar[bool] = False
    """Whether its step can pass over a gradient that is not finite without the host: nothing is read back then but at
    the first step, which makes the state, and at refreshes."""
    checks_gradients = True
    """Whether a gradient that is not finite is kept from the weights. False: it reaches them, as with torch's
    optimizers, and methods without SELECTS have one number less to read back from a device for each gradient."""
    selects: bool | None = None
    """Whether the device decides, of an optimizer with SELECTS. None: where the host would have to wait for it, so not
    on a CPU. The weights, the state and all counts come out the same; but the second pass of SAM is taken after a first
    gradient that is not finite, from where the weights are, and word of a skipped step comes with a later one."""
    _skipped: Tensor | None = None
    """Whether the step under way is skipped, where the device decides (see `selection`)."""
    _decides: bool | None = None
    """Whether the device decides in the step under way; None: not known yet."""

    @property
    def grad_evals(self) -> float:
        """Gradient evaluations spent so far."""
        return float(self.param_groups[0].get(COUNTER, 0.0))

    @property
    def skipped_steps(self) -> int:
        """Steps that were not taken because a gradient was not finite; read from the device where that decides."""
        self._settled()
        return int(self.param_groups[0].get(SKIPPED, 0))

    def _settled(self) -> None:
        """Counters as the device has them, where it decided or compiled steps were taken (see `compiled`)."""
        self.__dict__.get("_settle", bool)()
        for (index, key), count in self._late.take().items():
            if key == SKIPPED:
                for _ in range(count):
                    self.skip()
            else:
                self.param_groups[index][key] -= count

    @property
    def _late(self) -> Late:
        found: Late = self.__dict__.setdefault("_late_counts", Late())
        return found

    def counted(self, index: int, key: str) -> None:
        """Move a counter of a parameter group on; `_settled` takes back what the device has skipped."""
        self.param_groups[index][key] += 1
        if self._skipped is not None:
            self._late.add(index, key, self._skipped)

    def skip(self) -> None:
        """Count a step that is not taken, and say so at the first."""
        first = self.param_groups[0]
        first[SKIPPED] = count = int(first.get(SKIPPED, 0)) + 1
        if count == 1:
            warnings.warn(
                f"{type(self).__name__}: the gradient after {self.grad_evals:g} evaluations is not finite, so the step "
                "is not taken; training diverges, or a batch is broken. Later ones are counted in skipped_steps only",
                RuntimeWarning,
                stacklevel=3,
            )

    def takes_step(self) -> bool:
        """Whether the gradients in place are finite, or not looked at; True also where the device decides."""
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
        params = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        if not wanted or any(is_sharded(p) for p in params) or not all(map(is_plain, [*params, *gradients])):
            return False
        return not self.must_know()

    def must_know(self) -> bool:
        """Whether the host has to know at once, because this step makes state. Methods add when they learn."""
        return any(
            p.grad is not None and p not in self.state and (g.get("momentum") != 0 or g.get("base", "sgd") != "sgd")
            for g in self.param_groups
            for p in g["params"]
        )

    def doubt(self, skipped: Tensor) -> None:
        """The device has one more reason, or not, to skip the step."""
        self._skipped = skipped if self._skipped is None else torch.maximum(self._skipped, skipped)

    def _present(self) -> list[Tensor]:
        return [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]

    def end_step(self) -> None:
        """Count the step where the device skips it."""
        if self._skipped is not None:
            self._late.add(0, SKIPPED, self._skipped)
            self._late.send(0, SKIPPED)
        self._skipped = self._decides = None
