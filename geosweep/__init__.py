"""Trustworthy, Ray-distributed hyperparameter sweeps for geometric optimizers, from Python.

    >>> import geosweep
    >>> sweep = geosweep.run("sweeps/quickstart.yaml")  # doctest: +SKIP
    >>> sweep.best()  # doctest: +SKIP
    >>> print(sweep.compare())  # doctest: +SKIP

Names of this package are loaded on first use: `import geosweep` itself takes milliseconds.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geosweep import errors as errors
    from geosweep import optimizers as optimizers
    from geosweep._door import load as load
    from geosweep._door import run as run
    from geosweep._register import register as register
    from geosweep._register import task as task
    from geosweep._sweep import Sweep as Sweep
    from geosweep._trial import trial as trial
    from trainables import Metric as Metric
    from trainables import Task as Task

NAMES = {
    "Metric": "trainables",
    "Sweep": "geosweep._sweep",
    "Task": "trainables",
    "errors": "",
    "load": "geosweep._door",
    "optimizers": "",
    "register": "geosweep._register",
    "run": "geosweep._door",
    "task": "geosweep._register",
    "trial": "geosweep._trial",
}
"""Name -> the module that defines it; empty: it is a module of this package."""
__all__ = list(NAMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version(__name__)
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = NAMES[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")  # from tqdm; nothing here needs ipywidgets
        found = getattr(importlib.import_module(home), name) if home else importlib.import_module(f"{__name__}.{name}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES, "__version__"})
