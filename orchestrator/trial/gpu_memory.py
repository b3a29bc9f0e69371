"""A trial's share of a GPU's memory: its limit, so that one that runs out takes nothing of others', and its peak.

torch refuses what goes beyond the share of a process with OutOfMemoryError, in the trial that asked, though the device
may have room. A whole device has no limit.
"""

from __future__ import annotations

CONTEXT = 600 * 2**20
"""Bytes, about, that CUDA itself takes for each process beside what torch hands out."""
GIB = 2**30


def fraction(share: float, total: int) -> float:
    """Of a device of `total` bytes, what torch may hand out to a process with this `share`: without CUDA's own part.

    Half of the share at least: where CUDA itself takes more, trials are too small a share to train in at all.
    """
    return 1.0 if share >= 1 else max(share - CONTEXT / total, share / 2)


def claim(share: float) -> None:
    """Hold this process to its `share` of the visible GPU, and measure the peak anew; nothing where there is none."""
    import torch

    if share > 0 and torch.cuda.is_available():
        torch.cuda.empty_cache()  # of the trial before, in a worker that trains one after another
        torch.cuda.set_per_process_memory_fraction(fraction(share, _total()))
        torch.cuda.reset_peak_memory_stats()


def peak(share: float) -> dict[str, float]:
    """`memory/gpu_gib`, what torch has held at most since `claim`, as a metric; nothing where there is no GPU."""
    import torch

    if share > 0 and torch.cuda.is_available():
        return {"memory/gpu_gib": torch.cuda.max_memory_reserved() / GIB}
    return {}


def share_needed(bytes_reserved: float, total: int) -> float:
    """The share of a device that a trial with this peak needs: CUDA's own part added, and a tenth to spare.

    Rounded up to 1, 1/2, 1/3, ...: so many trials share the device.
    """
    at_once = int(total / (1.1 * bytes_reserved + CONTEXT))
    return 1.0 / max(1, at_once)


def _total() -> int:
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)
