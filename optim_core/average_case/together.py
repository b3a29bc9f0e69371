"""Check a gradient together with the loss, for methods that decide by the loss at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from optim_core.base import Closure, Counting
from optim_core.fresh import NotFinite
from optim_core.selection import at_hand, not_finite
from optim_core.sharded import is_sharded


class JudgesWithLoss(Counting):
    """Waits for a device once instead of twice; `selects` says whether, None: whenever there is a device."""

    _together = False
    _verdict: Tensor | None = None

    def takes_step(self) -> bool:
        """As every optimizer does, or together with the loss, in `read`."""
        if not self._together or not self.checks_gradients:
            return super().takes_step()
        self._verdict = not_finite(self._present())
        return True

    def evaluate_together(self, closure: Closure | None) -> Tensor:
        """Evaluate a gradient that is checked by `read`: if the host waits for the loss anyway, it waits only once."""
        params = [p for g in self.param_groups for p in g["params"]]
        away = self.selects if self.selects is not None else not all(map(at_hand, params))
        self._together, self._verdict = away and not any(map(is_sharded, params)), None
        try:
            return self.evaluate(closure)
        finally:
            self._together = False

    def read(self, loss: Tensor) -> float:
        """The loss as a number. Raises NotFinite for a gradient that was to be checked with it."""
        verdict, self._verdict = self._verdict, None
        if verdict is None:
            return float(loss)
        value, skipped = torch.stack([loss.detach().to(verdict.device, torch.float64), verdict.double()]).tolist()
        if skipped:
            raise NotFinite(loss)
        return float(value)
