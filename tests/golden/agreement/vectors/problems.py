"""The two training problems of the agreement files, float64, told by a seed; and what is compared."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

STEPS = 100


def network(kind: str) -> nn.Module:
    """`dense`: 6-5-3 with tanh. `conv`: convolution, group norm (scales named weight), an embedding added, a head."""
    model: nn.Module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)) if kind == "dense" else Conv()
    model = model.double()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.5)
    return model


class Conv(nn.Module):
    """Parameters with 1, 2 and 4 axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4)
        self.place, self.head = nn.Embedding(4, 4), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.norm(self.conv(x.view(-1, 1, 4, 4)))).flatten(2) + self.place.weight
        return self.head(hidden.flatten(1))


def batch(kind: str, index: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(500 + index)
    x = torch.randn(12, 6 if kind == "dense" else 16, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (12,), generator=generator)


def loss_at(model: nn.Module, kind: str, index: int) -> Callable[[], Tensor]:
    x, y = batch(kind, index)
    return lambda: nn.functional.cross_entropy(model(x), y)


def sizes(model: nn.Module) -> list[float]:
    """Norm of each parameter: enough to tell any two trajectories apart, together with the losses."""
    return [float(p.detach().norm()) for p in model.parameters()]
