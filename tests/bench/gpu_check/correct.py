"""Whether the device computes what the CPU computes, and goes on where it stopped."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import optim_core
from tests.bench.gpu_check.setting import Row, Setting
from tests.contracts.optimizer_contract import SETTINGS, batch_of, problem
from trainables.randomness import seed_torch

STEPS = 3
FAR = {"float32": 1e-3, "bfloat16": 0.3}
"""Difference after three steps, as a share of the way gone, above which the device is wrong. Under bfloat16 gradients
differ by 2^-8, and what divides by their size turns small ones around."""


class Run:
    """An optimizer on a small classifier; for games a second player shifts its inputs. All of it on one device."""

    def __init__(self, name: str, device: str, low: bool = False) -> None:
        self._device, self._low = device, low
        self._game = optim_core.lookup(name).PLAYS_GAMES
        classifier = problem(torch.float32)[0]
        torch.manual_seed(2)
        self.model = nn.ModuleList([classifier, *([nn.Linear(6, 6)] if self._game else [])]).to(device)
        extra: dict[str, Any] = {}
        if optim_core.needs_batches(name):
            extra = {"loss": nn.functional.cross_entropy, "refresh_batches": lambda i: self._batch(i, 10_100)}
        players = list(self.model) if self._game else self.model[0]
        values = {**SETTINGS.get(name, {"lr": 0.05}), **({"refresh_interval": 2} if extra else {}), **extra}
        self.optimizer = optim_core.build(name, players, **values)

    def _batch(self, index: int, stream: int = 100) -> tuple[Tensor, Tensor]:
        x, y = batch_of(index, torch.float32, stream)
        return x.to(self._device), y.to(self._device)

    def _closure(self, index: int) -> Callable[[], Any]:
        x, y = self._batch(index)

        def evaluate() -> Any:
            seed_torch(index)
            with torch.autocast(self._device, torch.bfloat16, enabled=self._low):
                shift = 0.3 * self.model[1](x) if self._game else torch.zeros_like(x)
                outputs = self.model[0](x + shift)
            loss = nn.functional.cross_entropy(outputs.float(), y)
            if self._game:
                return [loss, 2 * (shift.float() ** 2).mean() - loss]
            self.optimizer.zero_grad()
            loss.backward()
            return loss

        return evaluate

    def steps(self, first: int, last: int) -> None:
        for index in range(first, last):
            seed_torch(index)
            self.optimizer.step(self._closure(index))

    def weights(self) -> Tensor:
        """All of them in a row, in float64 on the CPU."""
        return torch.cat([p.detach().double().cpu().flatten() for p in self.model.parameters()])


def agreement(setting: Setting) -> Iterator[Row]:
    """Every optimizer three steps against the CPU: |w - w_cpu| / |w_cpu - w_0|, in float32 and bfloat16 autocast."""

    def row(name: str) -> Row:
        found: Row = {}
        for word, low in (("float32", False), ("bfloat16", True)):
            here, there = Run(name, setting.device, low), Run(name, "cpu", low)
            home = there.weights()
            for run in (here, there):
                run.steps(0, STEPS)
            error = float((here.weights() - there.weights()).norm() / (there.weights() - home).norm().clamp(min=1e-30))
            found[word] = error
            if not error <= FAR[word]:
                found["failed"] = f"{error:.2g} of the way off the CPU in {word}"
        return found

    return setting.each(setting.optimizers(), row)


def resume(setting: Setting) -> Iterator[Row]:
    """Three steps, a checkpoint through a file's bytes into a fresh optimizer, three steps: the bits of six steps."""

    def row(name: str) -> Row:
        whole, first, second = (Run(name, setting.device) for _ in range(3))
        whole.steps(0, 2 * STEPS)
        first.steps(0, STEPS)
        file = io.BytesIO()
        torch.save({"model": first.model.state_dict(), "optimizer": first.optimizer.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        second.model.load_state_dict(saved["model"])
        second.optimizer.load_state_dict(saved["optimizer"])
        second.steps(STEPS, 2 * STEPS)
        same = torch.equal(whole.weights(), second.weights())
        return {"bits": "the same" if same else "others", **({} if same else {"failed": "resumed weights differ"})}

    return setting.each(setting.optimizers(), row)
