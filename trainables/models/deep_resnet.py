"""Residual networks of the literature: ResNet-18 and ResNet-50 (He et al. 2016, Table 1), WRN-28-10 (Zagoruyko &
Komodakis 2016).

The stem is 7x7 with stride 2 and max pooling for photographs, or one 3x3 convolution for images of about 32 x 32.
The wide network is pre-activation: norm, ReLU, convolution, and a projecting skip that starts after the first ReLU.
Weights: He initialization (normal, fan out); norms 1 and 0. Letters: b batch, c channels, s side.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions; the last has 4 x the channels."""

    EXPANSION = 4

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        outside = self.EXPANSION * width
        self.conv1, self.norm1 = nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, outside, 1, bias=False), nn.BatchNorm2d(outside)
        self.skip = _skip(inside, outside, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[b, inside, s, s] -> [b, 4 width, s / stride, s / stride]."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.norm3(self.conv3(y)) + self.skip(x))


class Basic(nn.Module):
    """Two 3x3 convolutions."""

    EXPANSION = 1

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.skip = _skip(inside, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[b, inside, s, s] -> [b, width, s / stride, s / stride]."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x))


class DeepResNet(nn.Module):
    """Four stages of `depths` blocks, of width 64, 128, 256, 512. `small`: the stem for images of about 32 x 32."""

    def __init__(
        self,
        block: type[Basic] | type[Bottleneck],
        depths: tuple[int, ...],
        classes: int,
        channels: int,
        *,
        small: bool,
    ) -> None:
        super().__init__()
        if small:
            self.stem = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
            self.pool: nn.Module = nn.Identity()
        else:
            self.stem = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
            self.pool = nn.MaxPool2d(3, 2, 1)
        self.norm = nn.BatchNorm2d(64)
        blocks, inside = [], 64
        for stage, depth in enumerate(depths):
            width = 64 << stage
            for i in range(depth):
                blocks.append(block(inside, width, 2 if stage and not i else 1))
                inside = block.EXPANSION * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inside, classes)
        start(self)

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, s, s] -> [b, classes]."""
        y = self.blocks(self.pool(F.relu(self.norm(self.stem(x)))))
        return cast(Tensor, self.head(y.mean((2, 3))))


class WideBlock(nn.Module):
    """Pre-activation block of two 3x3 convolutions."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inside), nn.Conv2d(inside, width, 3, stride, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.project = None if inside == width and stride == 1 else nn.Conv2d(inside, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[b, inside, s, s] -> [b, width, s / stride, s / stride]."""
        y = F.relu(self.norm1(x))
        skip = x if self.project is None else self.project(y)
        return cast(Tensor, self.conv2(F.relu(self.norm2(self.conv1(y)))) + skip)


class WideResNet(nn.Module):
    """WRN-`depth`-`factor`: three stages of (depth - 4) / 6 blocks, width 16, 32, 64 times `factor`."""

    def __init__(self, classes: int, channels: int, *, depth: int = 28, factor: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        blocks, inside = [], 16
        for stage in range(3):
            for i in range((depth - 4) // 6):
                width = factor * (16 << stage)
                blocks.append(WideBlock(inside, width, 2 if stage and not i else 1))
                inside = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inside)
        self.head = nn.Linear(inside, classes)
        start(self)

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, s, s] -> [b, classes]."""
        y = F.relu(self.norm(self.blocks(self.stem(x))))
        return cast(Tensor, self.head(y.mean((2, 3))))


def start(model: nn.Module) -> None:
    """He et al. 2015, eq. 10, for convolutions; torch's defaults elsewhere."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _skip(inside: int, outside: int, stride: int) -> nn.Module:
    if stride == 1 and inside == outside:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
