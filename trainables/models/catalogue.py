"""Models by name, for tasks on user data: image classifiers and GPT-2 sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from trainables.models.deep_resnet import Basic, Bottleneck, DeepResNet, WideResNet
from trainables.models.gpt import GPT
from trainables.models.vgg import VGG16
from trainables.models.vit import ViT

SMALL_SIDE = 96
"""Images below this side get a 3x3 stem or patches of 4; larger ones the published design for 224."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Input and output sizes of an image classifier."""

    classes: int
    channels: int
    side: int
    attention: str = "plain"

    @property
    def small(self) -> bool:
        """Whether images are about CIFAR's size."""
        return self.side < SMALL_SIDE

    @property
    def patch(self) -> int:
        """Side of a vision transformer's patch, in pixels."""
        return 4 if self.small else 16


def _vit(at: Inputs, width: int, heads: int) -> nn.Module:
    return ViT(
        at.classes,
        side=at.side,
        channels=at.channels,
        patch=at.patch,
        width=width,
        depth=12,
        heads=heads,
        attention=at.attention,
    )


IMAGES: Mapping[str, Callable[[Inputs], nn.Module]] = {
    "resnet18": lambda at: DeepResNet(Basic, (2, 2, 2, 2), at.classes, at.channels, small=at.small),
    "resnet50": lambda at: DeepResNet(Bottleneck, (3, 4, 6, 3), at.classes, at.channels, small=at.small),
    "wrn28_10": lambda at: WideResNet(at.classes, at.channels),
    "vgg16_bn": lambda at: VGG16(at.classes, at.channels),
    "vit_ti": lambda at: _vit(at, 192, 3),
    "vit_s": lambda at: _vit(at, 384, 6),
}

GPT_SIZES: Mapping[str, tuple[int, int, int]] = {
    "gpt_nano": (64, 2, 4),
    "gpt2": (768, 12, 12),
    "gpt2_medium": (1024, 24, 16),
    "gpt2_large": (1280, 36, 20),
    "gpt2_xl": (1600, 48, 25),
}
"""(width, depth, heads); the published 124, 355, 774 and 1558 million parameters, and a small one for experiments."""


def gpt(
    name: str, vocabulary: int, *, context: int, dropout: float = 0.0, attention: str = "plain", bias: bool = True
) -> GPT:
    """The GPT of that name for sequences of `context` tokens."""
    width, depth, heads = GPT_SIZES[name]
    return GPT(
        vocabulary,
        block=context,
        width=width,
        depth=depth,
        heads=heads,
        attention=attention,
        dropout=dropout,
        bias=bias,
    )
