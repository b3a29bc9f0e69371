"""Process-wide state that a trial may change: torch defaults, the current folder, the environment.

A trial has its own state while it is advanced, and the previous state is restored in between, so a result is a function
of configuration and seed, whichever trials the process trained before or alongside. This state is not in checkpoints:
what a trial changed other than random states is listed in its result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from trainables.randomness import random_state, restore_random_state


@dataclass(frozen=True)
class Setting:
    """A piece of global state: how to read and restore it."""

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
    torch.set_default_device(None if held.type == "cpu" else held)  # None adds no cost per call


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
"""The environment comes last."""


class Ambient:
    """The global state of one trial: inside the context the trial's own, outside it the previous one."""

    def __init__(self) -> None:
        self._own: list[Any] = []
        self._random: Any = None
        self._changed: dict[str, None] = {}
        self._inside = False

    def __enter__(self) -> Self:
        self._before, self._random_before = [s.get() for s in SETTINGS], random_state()
        _put_all(self._own)
        if self._random is not None:
            restore_random_state(self._random)
        self._inside = True
        return self

    def found(self) -> tuple[str, ...]:
        """Names of the settings that the trial has changed so far."""
        for setting, before in zip(SETTINGS, self._before, strict=True) if self._inside else ():
            if setting.get() != before:
                self._changed[setting.name] = None
        return tuple(self._changed)

    @property
    def changed(self) -> tuple[str, ...]:
        """The last result of `found`."""
        return tuple(self._changed)

    def note(self, names: Iterable[str]) -> None:
        """Count these as changed, too."""
        self._changed.update(dict.fromkeys(names))

    def settle(self) -> None:
        """Treat what imports have set in the environment as shared."""
        self._before[-1] = dict(os.environ)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._random = random_state()
        self.found()
        self._inside = False
        self._own = [s.get() for s in SETTINGS]
        _put_all(self._before)
        restore_random_state(self._random_before)


def _put_all(values: list[Any]) -> None:
    for setting, value in zip(SETTINGS, values, strict=False):
        if setting.get() != value:
            setting.put(value)
