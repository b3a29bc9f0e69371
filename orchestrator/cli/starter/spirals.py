"""Two spirals, some of whose training labels are wrong: a task of one's own. Change it into yours."""

import torch
from torch import nn
from trainables import Metric, Task


class Spirals(Task):
    """Which of two interleaved spirals is a point on? `width` and `noise` stand under `task:` in the sweep file."""

    METRICS = {
        "accuracy/val": Metric(goal="maximize", worst=0.0),
        "accuracy/test": Metric(goal="maximize", worst=0.0),
    }
    FREE = frozenset({"width"})  # arms may search it for themselves; the noise decides what is asked

    def __init__(self, *, width: int = 32, noise: float = 0.2, examples: int = 512):
        self.width, self.noise = width, noise
        self.inputs, self.labels = spirals(examples, seed=0)
        self.held_out = {"accuracy/val": spirals(512, seed=1), "accuracy/test": spirals(2048, seed=2)}

    def model(self, seed):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(2, self.width), nn.Tanh(), nn.Linear(self.width, self.width), nn.Tanh(), nn.Linear(self.width, 2)
        )

    # What depends on chance is a function of (seed, index) alone: the same seed gives every arm the same batches and
    # wrong labels, and a trial that was killed goes on as if nothing had happened.
    def rows(self, seed, index):
        chance = torch.Generator().manual_seed(seed * 1_000_003 + index)
        return torch.randint(len(self.inputs), (64,), generator=chance)

    def wrong(self, seed):
        chance = torch.Generator().manual_seed(seed + 7)
        return (torch.rand(len(self.labels), generator=chance) < self.noise).long()

    def batch(self, seed, index):
        rows = self.rows(seed, index)
        return self.inputs[rows], self.labels[rows] ^ self.wrong(seed)[rows]

    def batch_identity(self, seed, index):
        rows = self.rows(seed, index)
        return rows.numpy().tobytes() + self.wrong(seed)[rows].numpy().tobytes()

    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)

    def evaluate(self, model):
        return {
            name: float((model(inputs).argmax(1) == labels).double().mean())
            for name, (inputs, labels) in self.held_out.items()
        }


def spirals(examples, seed):
    """Points (examples x 2) on two spirals of one and a half turns, a little off them, and the spiral of each."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples) % 2
    radius = torch.rand(examples, generator=chance).sqrt()
    angle = 3 * torch.pi * radius + torch.pi * labels
    points = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    return 2 * (points + 0.03 * torch.randn(points.shape, generator=chance)), labels
