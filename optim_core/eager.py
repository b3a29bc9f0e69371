"""Methods of torch's optimizers without what torch wraps around them: compiler, hooks, the profiler's mark."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks


def is_observed(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a hook, a profiler or the compiler looks at the whole step."""
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
        or torch.autograd.profiler._is_profiler_enabled
        or cast(Any, torch.autograd)._profiler_enabled()
        or torch.compiler.is_compiling()
    )


def eager(method: Callable[..., Any]) -> Callable[..., Any]:
    """One of torch's own methods without its `torch.compile` wrapper; any other method without its own hooks.

    The wrapper's first call imports torch's compiler, a fifth of a worker's time to its first step. Torch wraps `step`
    of every class that it builds in a call of the hooks: called from another step, they would run twice.
    """
    if getattr(method, "hooked", False):
        method = cast(Any, method).__wrapped__.__get__(cast(Any, method).__self__)
    if not method.__module__.startswith("torch.optim"):
        return method
    bound: Callable[..., Any] = _unwrapped(cast(Any, method).__func__).__get__(cast(Any, method).__self__)
    return bound


@functools.lru_cache(maxsize=256)  # every step asks for the same few
def _unwrapped(function: Any) -> Any:
    return inspect.unwrap(function)
