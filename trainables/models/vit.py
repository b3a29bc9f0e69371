"""Vision transformer (Dosovitskiy et al. 2021) with learned positions and mean pooling instead of a class token.

ViT-S/16 is ViT(classes, side=224, channels=3, patch=16, width=384, depth=12, heads=6).
Letters: b batch, c channels, s side in pixels, p patch, n = (s/p)^2 patches, d width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from trainables.models.transformer import Block


class ViT(nn.Module):
    """Images in, logits out. Raises ValueError if `patch` does not divide `side`. `attention`: plain or fused.

    Layers are initialized as in torch, positions as N(0, 0.02^2).
    """

    def __init__(
        self,
        classes: int,
        *,
        side: int,
        channels: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        attention: str = "plain",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if side % patch:
            raise ValueError(f"patch is {patch}; it must divide the side {side}")
        self._patch = patch
        self.patches = nn.Linear(channels * patch * patch, width)
        self.positions = nn.Parameter(torch.empty((side // patch) ** 2, width))
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(Block(width, heads, causal=False, attention=attention, dropout=dropout) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """[b, c, s, s] -> [b, classes]."""
        b, c, s, _ = images.shape
        p, n = self._patch, s // self._patch
        pieces = images.view(b, c, n, p, n, p).permute(0, 2, 4, 1, 3, 5).reshape(b, n * n, c * p * p)
        x = self.blocks(self.drop(self.patches(pieces) + self.positions))
        return cast(Tensor, self.head(self.norm(x).mean(1)))
