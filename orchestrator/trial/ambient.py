"""What a trial may change for everybody in its process: defaults of torch, the current folder, the environment.

A trial has its own while it is advanced, and what was there before comes back in between, so that a result is a
function of configuration and seed whichever trials the process trained before or beside it. A checkpoint does not hold
it: what a trial changed beyond random states is named in its result.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from trainables.randomness import random_state, restore_random_state


@dataclass(frozen=True)
class Setting:
    """A piece of global state: how it is read and put back."""

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], Any]


def _precision() -> str:
    return str(torch.get_float32_matmul_precision())


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _put_deterministic(state: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(state[0], warn_only=state[1])


def _put_device(held: torch.device) -> None:
    torch.set_default_device(None if held.type == "cpu" else held)  # None costs nothing at every call


def _put_environment(held: dict[str, str]) -> None:
    for key in set(os.environ) - set(held):
        del os.environ[key]
    os.environ.update({key: value for key, value in held.items() if os.environ.get(key) != value})


SETTINGS = (
    Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Setting("torch's default device", torch.get_default_device, _put_device),
    Setting("whether torch records gradients", torch.is_grad_enabled, torch.set_grad_enabled),
    Setting("torch's deterministic algorithms", _deterministic, _put_deterministic),
    Setting("torch's float32 matmul precision", _precision, torch.set_float32_matmul_precision),
    Setting("NumPy's error handling", np.geterr, lambda held: np.seterr(**held)),
    Setting("the current folder", os.getcwd, os.chdir),
    Setting("environment variables", lambda: dict(os.environ), _put_environment),
)
"""The environment is the last."""


class Ambient:
    """The global state of one trial: within it the trial's own, outside what was there before."""

    def __init__(self) -> None:
        self._own: list[Any] = []
        self._random: Any = None
        self._changed: dict[str, None] = {}

    def __enter__(self) -> Self:
        self._before, self._random_before = [s.get() for s in SETTINGS], random_state()
        _put_all(self._own)
        if self._random is not None:
            restore_random_state(self._random)
        return self

    def found(self) -> tuple[str, ...]:
        """Names of what the trial has left otherwise than it found it, so far; asked within."""
        for setting, before in zip(SETTINGS, self._before, strict=True):
            if setting.get() != before:
                self._changed[setting.name] = None
        return tuple(self._changed)

    @property
    def changed(self) -> tuple[str, ...]:
        """What was `found` so far."""
        return tuple(self._changed)

    def settle(self) -> None:
        """Take what imports have set in the environment for everybody's."""
        self._before[-1] = dict(os.environ)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._random = random_state()
        self.found()
        self._own = [s.get() for s in SETTINGS]
        _put_all(self._before)
        restore_random_state(self._random_before)


def _put_all(values: list[Any]) -> None:
    for setting, value in zip(SETTINGS, values, strict=False):
        if setting.get() != value:
            setting.put(value)
