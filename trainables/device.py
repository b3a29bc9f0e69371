"""Where a task puts its model and its batches.

`auto` takes the GPU that the trial was given (`resources: {gpu: ...}`; the executor hides all others) and the CPU where
it was given none. Models are initialised on the CPU and then moved, so that a seed means the same weights on both.
"""

from __future__ import annotations

import torch

WORDS = ("auto", "cpu", "cuda")


def check(device: str) -> None:
    """Raise ValueError for a word that is none; what this machine has does not matter, trials may run elsewhere."""
    if device not in WORDS:
        raise ValueError(f"device is {device!r}; available: {', '.join(WORDS)}")


def chosen(device: str) -> torch.device:
    """The device of this process. Raises RuntimeError when a GPU is asked for and none is visible."""
    visible = torch.cuda.is_available()
    if device == "cuda" and not visible:
        raise RuntimeError("device is 'cuda', but this trial sees no GPU; ask for one with resources: {gpu: 1}")
    return torch.device("cuda" if visible and device != "cpu" else "cpu")


def together(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Tensors of a small task on the device that the trial was given."""
    to = chosen("auto")
    return tuple(t.to(to) for t in tensors)


def moved(batch: torch.Tensor, to: torch.device) -> torch.Tensor:
    """A batch on the device; from pinned memory the copy overlaps with computation."""
    return batch.to(to, non_blocking=True)


def pinned(batch: torch.Tensor, to: torch.device) -> torch.Tensor:
    """In page-locked memory where the batch will go to a GPU."""
    return batch.pin_memory() if to.type == "cuda" else batch
