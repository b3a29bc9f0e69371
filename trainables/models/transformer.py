"""Pre-norm transformer blocks for the language and image models (Vaswani et al. 2017; Radford et al. 2019).

    x <- x + A(LN(x)),  x <- x + W_out gelu(W_in LN(x)),   A: multi-head attention, softmax(q k^T / sqrt(d/heads)) v

Letters: b batch, t positions, d width, h heads. `plain` attention is written in elementary operations and can be
differentiated any number of times in forward or reverse mode, as products with curvature matrices require; `fused`
calls torch's kernel, which is faster on long sequences and GPUs but lacks forward-mode and second derivatives.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KINDS = ("plain", "fused")


class Attention(nn.Module):
    """Multi-head self-attention with separate projections for query, key and value; `causal` masks later positions.

    Raises ValueError if `heads` does not divide `width`, or for an unknown kind of attention.
    """

    def __init__(self, width: int, heads: int, *, causal: bool, kind: str, dropout: float, bias: bool) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads is {heads}; it must divide the width {width}")
        if kind not in KINDS:
            raise ValueError(f"attention is {kind!r}; available: {', '.join(KINDS)}")
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=bias) for _ in range(4))
        self._heads, self._causal, self._kind, self._dropout = heads, causal, kind, dropout

    def forward(self, x: Tensor) -> Tensor:
        """[b, t, d] -> [b, t, d]."""
        b, t, d = x.shape
        q, k, v = (f(x).view(b, t, self._heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        rate = self._dropout if self.training else 0.0
        if self._kind == "fused":
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=self._causal)
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(d / self._heads)
            if self._causal:
                later = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
                scores = scores.masked_fill(later, -math.inf)
            y = F.dropout(scores.softmax(-1), rate) @ v
        return cast(Tensor, self.out(y.transpose(1, 2).reshape(b, t, d)))


class Block(nn.Module):
    """Attention and a two-layer perceptron of 4 x the width, each on a normalized residual stream."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        causal: bool,
        attention: str = "plain",
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, bias=bias)
        self.attention = Attention(width, heads, causal=causal, kind=attention, dropout=dropout, bias=bias)
        self.norm2 = nn.LayerNorm(width, bias=bias)
        self.inward = nn.Linear(width, 4 * width, bias=bias)
        self.outward = nn.Linear(4 * width, width, bias=bias)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[b, t, d] -> [b, t, d]."""
        x = x + self.drop(self.attention(self.norm1(x)))
        return cast(Tensor, x + self.drop(self.outward(F.gelu(self.inward(self.norm2(x)), approximate="tanh"))))


def initialise(model: nn.Module, depth: int) -> None:
    """GPT-2's initialization: weights N(0, 0.02^2), those writing to the residual stream 0.02 / sqrt(2 depth), biases
    0.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            into_stream = name.endswith(("attention.out", "outward"))
            nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * depth) if into_stream else 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
