"""Repeat random draws: passes that are compared must see the same dropout masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Draws:
    """torch's random state, on the CPU and the devices of `params`, at the time of creation."""

    def __init__(self, params: Iterable[Tensor]) -> None:
        self._cpu = torch.get_rng_state()
        devices = {p.device for p in params if p.device.type == "cuda"}
        self._cuda = {d.index or 0: torch.cuda.get_rng_state(d) for d in devices}

    @contextmanager
    def again(self) -> Iterator[None]:
        """Repeat the recorded draws; afterwards the state continues as if nothing had been drawn."""
        with torch.random.fork_rng(devices=sorted(self._cuda)):
            torch.set_rng_state(self._cpu)
            for device, state in self._cuda.items():
                torch.cuda.set_rng_state(state, device)
            yield
