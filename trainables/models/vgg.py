"""VGG-16 with BatchNorm for images of 32 x 32: configuration D of Simonyan & Zisserman 2015 and one linear layer.

The published head (three layers, 4096 wide, for 224 x 224) has 124 of the 138 million parameters; on CIFAR it is common
to use one linear layer on the 512 pooled channels instead: 14.7 million in all.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from trainables.models.deep_resnet import start

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """Five stages of 3x3 convolutions, each followed by 2x2 max pooling; average pool, linear head."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = channels
        for stage in WIDTHS:
            for width in stage:
                layers += [nn.Conv2d(inside, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                inside = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(inside, classes)
        start(self)

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, s, s] with s >= 32 -> [b, classes]."""
        return cast(Tensor, self.head(self.features(x).mean((2, 3))))
