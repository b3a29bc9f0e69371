"""Count a script's gradients and steps, and hash its first weights and batches, without its cooperation.

Needs only the standard library, and hooks into torch when the script imports it. Counted are outermost backward passes
(`Tensor.backward`, `torch.autograd.backward`, `torch.autograd.grad`) and steps of torch optimizers. Hashed are

    weights     every tensor of the optimizers' groups at the optimizer's first step; independent of order, so that
                another grouping of the same weights has the same digest
    batches     the first BATCHES that a DataLoader yields; in a script without one, the inputs of its models before
                its first step, or in the first call of the closure that this step is given

and for each tensor its dtype, its shape and its first and last BYTES. Only the first process of a distributed run
reports.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import json
import mmap
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BATCHES, BYTES, MOST_OPTIMIZERS = 16, 1 << 18, 8
COUNTS = struct.Struct("<QQd")
"""Backward passes, optimizer steps, and the charge of one of our optimizers."""


class Witness:
    """Reports what it sees to the worker, through the files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with (folder / "counts").open("r+b") as counts:
            self._counts = mmap.mmap(counts.fileno(), COUNTS.size)
        self._depth = self._stepping = self._forward = 0
        self._optimizers: set[int] = set()
        self._steps: dict[int, int] = {}
        self._weights: set[str] = set()
        self._batches: list[str] = []
        self._loader = self._aside = self._in_closure = False
        self._base = [0, 0]
        self._handles: list[Any] = []

    def say(self, **what: Any) -> None:
        """Send one line to the worker, completely or not at all."""
        line = (json.dumps(what) + "\n").encode()
        fd = os.open(self._folder / "said.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)

    @property
    def grad_evals(self) -> float:
        """Gradient evaluations so far: the charge of one of our optimizers, otherwise backward passes."""
        backwards, _, charged = COUNTS.unpack(self._counts[: COUNTS.size])
        return float(charged or backwards + self._base[0])

    def counts(self) -> list[int]:
        """Backward passes and optimizer steps so far, including those of earlier runs."""
        backwards, steps, _ = COUNTS.unpack(self._counts[: COUNTS.size])
        return [self._base[0] + backwards, self._base[1] + steps]

    def charge(self, amount: float) -> None:
        """Set the total of an optimizer that counts its own gradient evaluations."""
        backwards, steps, _ = COUNTS.unpack(self._counts[: COUNTS.size])
        self._counts[: COUNTS.size] = COUNTS.pack(backwards, steps, amount)

    def _count(self, backwards: int = 0, steps: int = 0) -> None:
        """`steps`: total so far."""
        b, s, charged = COUNTS.unpack(self._counts[: COUNTS.size])
        self._counts[: COUNTS.size] = COUNTS.pack(b + backwards, max(s, steps), charged)

    def attach(self, torch: Any) -> None:
        """Observe training with this torch."""
        import warnings

        warnings.filterwarnings("ignore", message="Using `torch.compile.module.` when there are global hooks")
        for name in ("backward", "grad"):
            setattr(torch.autograd, name, self._counted(getattr(torch.autograd, name)))
        from torch.nn.modules.module import (
            register_module_forward_hook,
            register_module_forward_pre_hook,
        )
        from torch.optim.optimizer import (
            register_optimizer_step_post_hook,
            register_optimizer_step_pre_hook,
        )

        register_optimizer_step_pre_hook(self._before_step)
        register_optimizer_step_post_hook(self._after_step)
        self._handles = [
            register_module_forward_pre_hook(self._before_forward),
            register_module_forward_hook(self._after_forward, always_call=True),
        ]
        from torch.utils.data import dataloader

        base: Any = dataloader._BaseDataLoaderIter
        base.__next__ = self._seen(base.__next__)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Not observed: steps and gradients that are ours, not the script's."""
        self._aside = True
        try:
            yield
        finally:
            self._aside = False

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        import functools

        @functools.wraps(function)
        def counted(*args: Any, **keywords: Any) -> Any:
            self._depth += 1
            try:
                return function(*args, **keywords)
            finally:
                self._depth -= 1
                if not self._depth and not self._aside:
                    self._count(backwards=1)

        return counted

    def _try(self, look: Callable[..., None], *what: Any) -> None:
        """Never break the script by observing it: what cannot be hashed is not."""
        try:
            look(*what)
        except Exception as error:
            self.say(note=f"{look.__name__.strip('_')}: {type(error).__name__}: {error}")

    def _before_step(self, optimizer: Any, args: Any, keywords: Any) -> Any:
        if self._aside:
            return None
        self._stepping += 1
        if id(optimizer) in self._optimizers or len(self._optimizers) >= MOST_OPTIMIZERS:
            return None
        self._optimizers.add(id(optimizer))
        self._try(self._weights_of, optimizer)
        if self._handles and len(args) == 2 and callable(args[1]) and not keywords:
            return (args[0], self._looked_into(args[1])), keywords
        if self._handles and len(args) == 1 and set(keywords) == {"closure"} and callable(keywords["closure"]):
            return args, {"closure": self._looked_into(keywords["closure"])}
        self._stop_looking_at_models()
        return None

    def _looked_into(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        """The closure; the inputs of models in its first call are hashed."""

        def looked_into(*args: Any, **keywords: Any) -> Any:
            self._in_closure = bool(self._handles)
            try:
                return closure(*args, **keywords)
            finally:
                if self._in_closure:
                    self._stop_looking_at_models()
                self._in_closure = False

        return looked_into

    def _weights_of(self, optimizer: Any) -> None:
        self._weights |= {_digest(p) for group in optimizer.param_groups for p in group["params"]}
        self.say(init=hashlib.sha256("".join(sorted(self._weights)).encode()).hexdigest()[:32])

    def _after_step(self, optimizer: Any, args: Any, keywords: Any) -> None:
        if self._aside:
            return
        self._stepping = max(0, self._stepping - 1)
        if not self._stepping:  # with several optimizers side by side, the count of the busiest one
            self._steps[id(optimizer)] = self._steps.get(id(optimizer), 0) + 1
            self._count(steps=max(self._steps.values()))

    def _before_forward(self, module: Any, inputs: Any) -> None:
        self._forward += 1
        if self._forward > 1 or not module.training or self._loader or self._aside:
            return
        if self._stepping and not self._in_closure:
            return  # an optimizer's own evaluation
        tensors = list(_tensors(inputs))
        if tensors and not any(t.requires_grad for t in tensors):
            self._try(self._batch, tensors)

    def _after_forward(self, module: Any, inputs: Any, output: Any) -> None:
        self._forward = max(0, self._forward - 1)

    def _stop_looking_at_models(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _seen(self, following: Callable[..., Any]) -> Callable[..., Any]:
        def seen(iterator: Any) -> Any:
            batch = following(iterator)
            if not self._loader:
                self._loader, self._batches = True, []
                self._stop_looking_at_models()
            if len(self._batches) < BATCHES:
                self._try(self._batch, list(_tensors(batch)))
            return batch

        return seen

    def _batch(self, tensors: list[Any]) -> None:
        if not tensors or len(self._batches) >= BATCHES:
            return
        self._batches.append("".join(map(_digest, tensors)))
        found = hashlib.sha256("\n".join(self._batches).encode()).hexdigest()[:32]
        self.say(data=found, batches=len(self._batches))


def _tensors(value: Any) -> Any:
    """All tensors in nested lists and mappings, in order."""
    if hasattr(value, "detach") and hasattr(value, "requires_grad"):
        yield value
    elif isinstance(value, dict) or hasattr(value, "items"):
        for _, inner in sorted(value.items(), key=lambda item: str(item[0])):
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)


def _digest(tensor: Any) -> str:
    """Of dtype, shape, and the first and last BYTES."""
    flat = tensor.detach().reshape(-1)
    most = max(1, BYTES // max(1, flat.element_size()))
    found = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    for part in (flat[:most], flat[most:][-most:]):
        found.update(_bytes(part.cpu().contiguous()))
    return found.hexdigest()


def _bytes(part: Any) -> bytes:
    import torch

    return bytes(part.view(torch.uint8).numpy().tobytes()) if part.numel() else b""


class _WhenImported(importlib.abc.MetaPathFinder):
    """Attaches the witness to torch right after the script has imported it."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Handles torch only, and only once."""
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def executed(module: Any) -> None:
            execute(module)
            _attach(self._witness, module)

        spec.loader.exec_module = executed  # type: ignore[method-assign]
        return spec


def _attach(witness: Witness, torch: Any) -> None:
    """Never break the script by observing it."""
    try:
        witness.attach(torch)
    except Exception as error:
        witness.say(note=f"gradients are not counted: {type(error).__name__}: {error}")


_WITNESS: list[Witness] = []


def witness() -> Witness | None:
    """The witness of this process, if there is one: in a sweep, in the first process of a distributed run."""
    folder = os.environ.get("GEOSWEEP_TRIAL", "")
    if not folder or os.environ.get("RANK", "0") != "0" or os.environ.get("LOCAL_RANK", "0") != "0":
        return None
    if not _WITNESS:
        try:
            found = Witness(Path(folder))
            given = json.loads((Path(folder) / "given.json").read_text(encoding="utf-8"))
            wanted, found._base = given.get("prove", True), given.get("counts", [0, 0])
        except (OSError, ValueError):
            return None
        _WITNESS.append(found)
        if not wanted:
            return found
        if "torch" in sys.modules:
            _attach(found, sys.modules["torch"])
        else:
            sys.meta_path.insert(0, _WhenImported(found))
    return _WITNESS[0]
