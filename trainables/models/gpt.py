"""GPT: a causal transformer over tokens with learned positions and a tied head (Radford et al. 2019).

GPT-2 small is GPT(50257, block=1024, width=768, depth=12, heads=12). Letters: b batch, t <= block positions,
v vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.models.transformer import Block, initialise


class GPT(nn.Module):
    """Token numbers in, logits out. `dropout` in [0, 1) acts on embeddings, attention and residual branches.

    `bias=False` leaves out all biases, as in the GPT-2 of Zhang et al. 2024. `attention`: plain or fused.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        block: int,
        width: int,
        depth: int,
        heads: int,
        attention: str = "plain",
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(block, width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(Block(width, heads, causal=True, attention=attention, dropout=dropout, bias=bias) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width, bias=bias)
        initialise(self, depth)

    def forward(self, tokens: Tensor) -> Tensor:
        """[b, t] of token numbers -> logits [b, t, v] of the next token."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.blocks(self.drop(self.tokens(tokens) + self.positions(places)))
        return F.linear(self.norm(x), self.tokens.weight)
