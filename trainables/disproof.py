"""Whether runs of a task can be stepped together, found by trying: some models cannot be batched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from trainables.loop import Diverged, Training
from trainables.pack import Make, Pack
from trainables.packable import Unpackable


def disproved(make: Callable[[], Sequence[Training]], step: Make) -> str:
    """Why a pack of the runs that `make` returns cannot take two steps; empty if its steps equal those of single
    runs.
    """
    alone, packed = make(), make()
    try:
        pack = Pack(packed, step)
        _two(pack.advance)
    except (Unpackable, RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    pack.release()
    for run, other in zip(alone, packed, strict=True):
        _two(run.advance)
        assert isinstance(run.model, nn.Module)
        assert isinstance(other.model, nn.Module)
        for (name, mine), theirs in zip(run.model.state_dict().items(), other.model.state_dict().values(), strict=True):
            far = float((mine.double() - theirs.double()).abs().max()) if mine.numel() else 0.0
            if far > 1e-2 * max(1.0, float(mine.double().abs().max())):
                return f"after two steps {name} differs by {far:.1g} from the trial run alone"
    return ""


def _two(advance: Callable[..., Any]) -> None:
    """Two steps, or fewer if a run diverges."""
    calls = iter((False, False))
    try:
        advance(lambda: next(calls, True))
    except Diverged:
        return
