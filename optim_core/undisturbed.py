"""Measure a model during training without side effects, in float32 or wider.

Also if the model's code itself casts to bfloat16 or float16: within this context, such a cast goes to float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

PROBE_SAMPLES = 2
NARROW = (torch.bfloat16, torch.float16)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (running statistics, no dropout), no autocast; modes and random state are restored afterwards."""
    modes = [(m, m.training) for m in model.modules()]
    devices = {p.device for p in model.parameters()}
    on_cuda = sorted({d.index or 0 for d in devices if d.type == "cuda"})
    model.eval()
    try:
        with torch.random.fork_rng(devices=on_cuda), ExitStack() as stack:
            for kind in {d.type for d in devices}:
                stack.enter_context(torch.autocast(kind, enabled=False))
            stack.enter_context(Widening())
            yield
    finally:
        for module, mode in modes:
            module.training = mode


class Widening(TorchFunctionMode):
    """Treats every bfloat16 and float16 requested by a model's code as float32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The call with wider types."""
        if func in (Tensor.bfloat16, Tensor.half):
            func = Tensor.float
        if _holds_narrow(args) or (kwargs and _holds_narrow(kwargs.values())):  # rare, and maps are slow
            args, kwargs = tree_map(_wider_type, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def _holds_narrow(found: Iterable[Any]) -> bool:
    for x in found:
        if isinstance(x, torch.dtype):
            if x in NARROW:
                return True
        elif isinstance(x, tuple | list):
            if _holds_narrow(x):
                return True
        elif isinstance(x, Mapping) and _holds_narrow(x.values()):
            return True
    return False


def _wider_type(x: Any) -> Any:
    return torch.float32 if isinstance(x, torch.dtype) and x in NARROW else x


class Widened(nn.Module):
    """A model of bfloat16 or float16 weights, run in float32 without touching them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any) -> Any:
        """The model's outputs."""
        own = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        wider = {k: t.to(torch.promote_types(t.dtype, torch.float32)) for k, t in own.items() if t.is_floating_point()}
        return torch.func.functional_call(self.model, wider, (inputs,))


def wide(tensor: Tensor) -> Tensor:
    """A detached tensor in float32 at least; integer tensors unchanged."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def widen(inputs: Any) -> Any:
    """`wide` of every tensor in nested tuples, lists and mappings."""
    if isinstance(inputs, Tensor):
        return wide(inputs)
    if isinstance(inputs, Mapping):
        return {k: widen(v) for k, v in inputs.items()}
    if isinstance(inputs, tuple | list):
        return cast(Any, type(inputs))(widen(v) for v in inputs)
    return inputs


def head(part: Any) -> Any:
    """The first samples of nested inputs or targets."""
    if isinstance(part, Tensor):
        return part[:PROBE_SAMPLES] if part.ndim else part
    if isinstance(part, Mapping):
        return {k: head(v) for k, v in part.items()}
    if isinstance(part, tuple | list):
        return cast(Any, type(part))(head(v) for v in part)
    return part
