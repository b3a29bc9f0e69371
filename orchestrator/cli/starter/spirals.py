"""Two interleaved spirals with label noise: an example task to adapt."""

import torch
from torch import nn
from trainables import Metric, Task


class Spirals(Task):
    """Classify points by the spiral they lie on. Set `width` and `noise` under `task:` in the sweep file."""

    METRICS = {
        "accuracy/val": Metric(goal="maximize", worst=0.0),
        "accuracy/test": Metric(goal="maximize", worst=0.0),
    }
    FREE = frozenset({"width"})  # each arm may search its own; the noise changes the question

    def __init__(self, *, width: int = 32, noise: float = 0.2, examples: int = 512):
        self.width, self.noise = width, noise
        self.inputs, self.labels = spirals(examples, seed=0)
        self.held_out = {"accuracy/val": spirals(512, seed=1), "accuracy/test": spirals(2048, seed=2)}

    def model(self, seed):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(2, self.width), nn.Tanh(), nn.Linear(self.width, self.width), nn.Tanh(), nn.Linear(self.width, 2)
        )

    # Everything random is a function of (seed, index) alone, so a seed gives every arm the same batches and label
    # noise, and a killed trial resumes exactly.
    def rows(self, seed, index):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        return torch.randint(len(self.inputs), (64,), generator=generator)

    def wrong(self, seed):
        generator = torch.Generator().manual_seed(seed + 7)
        return (torch.rand(len(self.labels), generator=generator) < self.noise).long()

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
    """Sample noisy points (examples x 2) from two spirals of one and a half turns, with their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples) % 2
    radius = torch.rand(examples, generator=generator).sqrt()
    angle = 3 * torch.pi * radius + torch.pi * labels
    points = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    return 2 * (points + 0.03 * torch.randn(points.shape, generator=generator)), labels
