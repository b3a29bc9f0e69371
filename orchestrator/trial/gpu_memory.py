"""A trial's share of GPU memory: a limit, so that a trial running out of memory does not affect others, and the peak.

torch refuses allocations beyond a process's share with OutOfMemoryError, in the trial that requested them, even if the
device has free memory. A whole device has no limit.
"""

from __future__ import annotations

CONTEXT = 600 * 2**20
"""Approximate bytes that CUDA itself takes per process in addition to torch's allocations."""
GIB = 2**30


def fraction(share: float, total: int) -> float:
    """The fraction of a device of `total` bytes that torch may allocate in a process with this `share`, minus CUDA's
    own part.

    At least half of the share: if CUDA itself takes more, the share is too small to train in at all.
    """
    return 1.0 if share >= 1 else max(share - CONTEXT / total, share / 2)


def claim(share: float) -> None:
    """Limit this process to its `share` of the visible GPU, and reset the peak; no-op without a GPU."""
    import torch

    if share > 0 and torch.cuda.is_available():
        torch.cuda.empty_cache()  # left by the previous trial of this worker
        torch.cuda.set_per_process_memory_fraction(fraction(share, _total()))
        torch.cuda.reset_peak_memory_stats()


def peak(share: float) -> dict[str, float]:
    """`memory/gpu_gib`, torch's peak memory since `claim`, as a metric; empty without a GPU."""
    import torch

    if share > 0 and torch.cuda.is_available():
        return {"memory/gpu_gib": torch.cuda.max_memory_reserved() / GIB}
    return {}


def share_needed(bytes_reserved: float, total: int) -> float:
    """The share of a device that a trial with this peak needs, including CUDA's own part and a tenth to spare.

    Rounded up to 1, 1/2, 1/3, ...: that many trials share the device.
    """
    at_once = int(total / (1.1 * bytes_reserved + CONTEXT))
    return 1.0 / max(1, at_once)


def _total() -> int:
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)
