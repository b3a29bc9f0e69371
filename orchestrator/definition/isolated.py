"""Global state while something of the user's is imported, built or trained in this process beside its trials."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.definition.ambient import Ambient

_on_import: dict[str, tuple[str, ...]] = {}


@contextmanager
def isolated() -> Iterator[Ambient]:
    """Changes within are undone (see `ambient`, which is imported here for the sake of commands without torch)."""
    from orchestrator.definition.ambient import Ambient

    with Ambient() as state:
        yield state


def imported(name: str, load: Callable[[], object]) -> tuple[str, ...]:
    """Names of the settings that importing an arm's optimizer has changed, in this process. All but what its module set
    in the environment is undone: else the trials that follow in this process would differ from those before, and from
    other processes'.
    """
    if name not in _on_import:
        with isolated() as state:
            with suppress(Exception, SystemExit):  # which `load` tells
                importlib.import_module(name.rpartition("(")[2].rstrip(")").rpartition(".")[0])
            state.settle()
            load()  # also builds it, to see whether it can be an arm
            _on_import[name] = state.found()
    return _on_import[name]
