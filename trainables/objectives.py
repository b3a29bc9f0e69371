"""Losses shared by tasks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

IGNORED = -1


def token_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats over the tokens with a nonnegative target; a negative target masks its token.

    logits [..., v], targets [...] -> scalar; 0 if every token is masked. `label_smoothing` in [0, 1).
    """
    flat = targets.reshape(-1).clamp_min(IGNORED)
    summed = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float() if logits.dtype.itemsize == 2 else logits.flatten(0, -2),
        flat,
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return summed / token_count(flat).clamp_min(1)


def token_count(targets: Tensor) -> Tensor:
    """Number of unmasked tokens: the weight of `token_loss` when a batch is split into pieces."""
    return (targets >= 0).sum()
