"""The front door for Python. `geosweep.trial()` in a script: what a sweep gives it, and where it reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geosweep._trial import trial as trial

__all__ = ["trial"]


def __getattr__(name: str) -> Any:
    """What is used is imported."""
    if name == "trial":
        from geosweep._trial import trial

        return trial
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
