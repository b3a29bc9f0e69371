"""The device of a task's model and batches.

`auto` uses the GPU assigned to the trial (`resources: {gpu: ...}`; the executor hides all others), or the CPU if there
is none. Models are initialized on the CPU and then moved, so a seed gives the same weights on both.
"""

from __future__ import annotations

import torch

WORDS = ("auto", "cpu", "cuda")


def check(device: str) -> None:
    """Raise ValueError for an unknown device; this machine's hardware does not matter, since trials may run
    elsewhere.
    """
    if device not in WORDS:
        raise ValueError(f"device is {device!r}; available: {', '.join(WORDS)}")


def chosen(device: str) -> torch.device:
    """The device of this process. Raises RuntimeError if a GPU is requested and none is visible."""
    visible = torch.cuda.is_available()
    if device == "cuda" and not visible:
        raise RuntimeError("device is 'cuda', but this trial sees no GPU; ask for one with resources: {gpu: 1}")
    return torch.device("cuda" if visible and device != "cpu" else "cpu")


def together(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Move tensors of a small task to the trial's device."""
    to = chosen("auto")
    return tuple(t.to(to) for t in tensors)


def moved(batch: torch.Tensor, to: torch.device) -> torch.Tensor:
    """The batch on the device; from pinned memory the copy overlaps with computation."""
    return batch.to(to, non_blocking=True)


def pinned(batch: torch.Tensor, to: torch.device) -> torch.Tensor:
    """The batch in page-locked memory if it will go to a GPU."""
    return batch.pin_memory() if to.type == "cuda" else batch
