"""How much memory a trial of each arm takes: a few configurations take a few steps each, alone in this process.

On a GPU the peak is what torch reserved; on a CPU it is how much the process grew. Memory peaks in the
first steps, which create optimizer states and refresh preconditioners. Evaluations count, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optim_core.packed import PackedStep
from orchestrator.definition.model import ArmSpec, Spec
from orchestrator.protocol import pace
from orchestrator.trial import gpu_memory
from trainables.loop import Diverged
from trainables.pack import Pack, at_once

CONFIGURATIONS, STEPS = 3, 3
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, kw_only=True)
class Taken:
    """The most memory that configurations of an arm took."""

    device: str
    gib: float | None
    """Peak memory on the GPU or this machine; None if memory ran out or the system does not report it."""
    total_gib: float | None = None
    """Memory of the GPU."""
    share: float | None = None
    """The part of the GPU that a trial needs; None without one, and where the whole GPU is too small."""
    fits: bool = True
    """Whether that is within `resources.gpu`, and memory did not run out."""
    pieces: int | None = None
    """The most that `accumulate: auto` cut a batch into."""
    error: str = ""
    """The first line of what was raised when memory ran out."""
    pack: int = 1
    """Trials that were stepped together (`resources.pack`), and take this memory together."""


def probed(spec: Spec) -> dict[str, Taken]:
    """Probe every arm. Other errors in a configuration are raised."""
    return {name: _probed(spec, arm) for name, arm in spec.arms.items()}


def judged(reserved: int, total: int, share: float) -> tuple[float | None, bool]:
    """(the share of a GPU of `total` bytes that a trial with this peak needs, whether it fits into `share`)."""
    needed = gpu_memory.share_needed(reserved, total)
    return needed, gpu_memory.fraction(share, total) * total >= reserved


def _probed(spec: Spec, arm: ArmSpec) -> Taken:
    import torch

    gpu = torch.cuda.is_available()
    device, pack = torch.cuda.get_device_name() if gpu else "CPU", spec.resources.pack
    total = torch.cuda.get_device_properties(0).total_memory if gpu else 0
    peaks: list[int | None] = []
    pieces: list[int] = []
    for config in pace.probes(arm, CONFIGURATIONS):
        try:
            peak, cut = _steps(spec, arm, config, gpu)
        except torch.OutOfMemoryError as error:
            total_gib = total / gpu_memory.GIB if gpu else None
            said = str(error).splitlines()[0]
            return Taken(device=device, gib=None, total_gib=total_gib, fits=False, error=said, pack=pack)
        peaks.append(peak)
        pieces += [cut] if cut is not None else []
    most = None if None in peaks else max(p for p in peaks if p is not None)
    gib, cut = None if most is None else most / gpu_memory.GIB, max(pieces, default=None)
    if not gpu or most is None:
        return Taken(device=device, gib=gib, pieces=cut, pack=pack)
    share, fits = judged(most, total, spec.resources.gpu or 1.0)
    total_gib = total / gpu_memory.GIB
    return Taken(device=device, gib=gib, total_gib=total_gib, share=share, fits=fits, pieces=cut, pack=pack)


def _steps(spec: Spec, arm: ArmSpec, config: Mapping[str, Any], gpu: bool) -> tuple[int | None, int | None]:
    """(bytes at most, pieces where they are found on the way) of a configuration."""
    gpu_memory.claim(1.0)
    before = _resident(reset=True)
    made = [pace.training_of(spec, arm, config) for _ in range(spec.resources.pack)]
    (task, training), packs = made[0], list[Pack]()
    if len(made) == 1:
        with contextlib.suppress(Diverged):
            training.advance(lambda: training.step >= STEPS)
    runs, size = [run for _, run in made], at_once(training, len(made))
    for part in [runs[i : i + size] for i in range(0, len(runs), size)] if len(runs) > 1 else ():
        steps = iter(range(STEPS))
        packs.append(Pack(part, PackedStep))
        packs[-1].advance(lambda: next(steps, None) is None)  # noqa: B023
        packs[-1].scores(range(len(part)))
    for model in training.model if isinstance(training.model, list) else [training.model]:
        model.eval()
    task.evaluate(training.model)
    cut = training.pieces
    if gpu:
        import torch

        return int(torch.cuda.max_memory_reserved()), cut
    after = _resident(reset=False)
    return (None if before is None or after is None else max(0, after - before)), cut


def _resident(*, reset: bool) -> int | None:
    """Bytes of this process in memory: now, restarting the peak count; or that peak. None where not reported."""
    try:
        if reset:
            RESET.write_text("5")
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return int(lines["VmRSS" if reset else "VmHWM"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
