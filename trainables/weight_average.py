"""The running mean of the weights, which is evaluated instead of them.

    a_t = sum_{s <= t} d^(t - s) w_s / sum_{s <= t} d^(t - s)

with decay d in [0, 1): an exponential mean of the iterates without bias toward the initial weights. Buffers, such as
BatchNorm's running statistics, are averaged the same way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class WeightAverage:
    """Follows `model`; needs one additional copy of the weights. An update costs one elementwise pass."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        @torch.no_grad()
        def blend(averages: Any, currents: Any, count: Tensor | int) -> None:
            share = (1 - decay) / (1 - decay ** (int(count) + 1))
            if averages[0].is_floating_point():
                torch._foreach_lerp_(averages, currents, share)
            else:
                torch._foreach_copy_(averages, currents)

        self._average = AveragedModel(model, multi_avg_fn=blend, use_buffers=True)

    @property
    def model(self) -> nn.Module:
        """The model with averaged weights."""
        return self._average.module

    def update(self, model: nn.Module) -> None:
        """Add the weights after a step."""
        self._average.update_parameters(model)

    def state_dict(self) -> dict[str, Any]:
        """Tensors only."""
        return self._average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        self._average.load_state_dict(state)
