"""A task of which one trial wants more memory than its share of a GPU."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainables import Batch, Metric, Model, Task
from trainables import device as devices

AT = 3


class Hungry(Task):
    """Fit a linear map; the trial with `hungry_seed` asks for nine tenths of the device at its fourth batch."""

    METRICS: ClassVar = {"loss/val": Metric(goal="minimize", worst=1e4)}

    def __init__(self, *, hungry_seed: int = -1) -> None:
        self._hungry = hungry_seed

    def model(self, seed: int) -> Model:
        """On the device that the trial was given."""
        torch.manual_seed(seed)
        return nn.Linear(64, 64).to(devices.chosen("auto"))

    def batch(self, seed: int, index: int) -> Batch:
        """Noise, to be left as it is."""
        if seed == self._hungry and index == AT:
            _take()
        x = torch.randn(32, 64, generator=torch.Generator().manual_seed(seed * 100_003 + index))
        return devices.together(x, x)

    def batch_identity(self, seed: int, index: int) -> bytes:
        """The seed of the noise."""
        return f"{seed}/{index}".encode()

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """Mean squared error."""
        return ((outputs - targets) ** 2).mean()

    def evaluate(self, model: Model) -> dict[str, float]:
        """On one more batch."""
        assert isinstance(model, nn.Module)
        x, y = self.batch(10**6, 0)
        with torch.no_grad():
            return {"loss/val": float(self.loss(model(x), y))}


def _take() -> None:
    if not torch.cuda.is_available():
        raise torch.OutOfMemoryError("as a GPU would say whose memory is used up")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.empty(int(0.9 * total), dtype=torch.uint8, device="cuda")
