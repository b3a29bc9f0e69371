"""Numeric precision of forward and backward passes: float32, TF32, bfloat16, or float16 with loss scaling.

Weights, the loss and everything the optimizer sees stay float32, and so do evaluations.

`fp32` leaves torch's settings alone (on a GPU its convolutions may use TF32, its matrix products do not); `tf32`
enables TF32 for both within the passes. Under `fp16` the loss is multiplied by a scale before the backward pass and
gradients are divided by it afterwards, so that small ones do not underflow (Micikevicius et al. 2018, sec. 3.2). A
gradient that overflows is not finite: the optimizer skips that step (`skipped_steps`) and the scale is halved; it is
doubled after 2000 gradients without overflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

NAMES = ("fp32", "tf32", "bf16", "fp16")
FIRST_SCALE = 2.0**12
"""Lower than torch's 2^16, with which small models, whose gradients are large, would skip their first steps."""
LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """The passes of one model with these `params`, all on one device."""

    def __init__(self, name: str, params: Sequence[nn.Parameter]) -> None:
        self._device = params[0].device.type
        self._low = LOW.get(name)
        self._tf32 = name == "tf32" and self._device == "cuda"
        self._scaler = torch.amp.GradScaler(self._device, init_scale=FIRST_SCALE) if name == "fp16" else None
        self._params = torch.optim.SGD(params, lr=0.0) if self._scaler else None  # the scaler requires an optimizer

    def passes(self) -> Any:
        """Context for a forward and a backward pass."""
        return _tf32_products() if self._tf32 else nullcontext()

    def forward(self) -> Any:
        """Context for the model alone."""
        return torch.autocast(self._device, dtype=self._low) if self._low else nullcontext()

    def widened(self, outputs: Any) -> Any:
        """A model output in the type that the loss takes."""
        low = self._low is not None and isinstance(outputs, Tensor) and outputs.dtype == self._low
        return outputs.float() if low else outputs

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled."""
        return self._scaler is not None

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to call backward on."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def settle(self) -> None:
        """After the backward passes of a gradient: divide it by the scale, and update the scale."""
        if self._scaler is None:
            return
        assert self._params is not None
        self._scaler.unscale_(self._params)
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        """The scale, and how long it has been in use."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)


@contextmanager
def _tf32_products() -> Iterator[None]:
    """TF32 for products and convolutions on CUDA, through the older of torch's settings, which its compiler reads
    too.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
