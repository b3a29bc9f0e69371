"""Errors in accessing a sweep: not found, damaged, held by another driver, or no answer."""

from __future__ import annotations

from pathlib import Path


class NotFound(Exception):  # noqa: N818
    """No sweep (or trial) of that name under the root."""


class Damaged(ValueError):  # noqa: N818
    """A file of a sweep does not hold what was written to it."""

    def __init__(self, path: Path, why: str) -> None:
        way = "restore it from a copy"
        if path.parent.parent.name == "trials":
            way += f", or delete {path.parent} and run the sweep again, which retrains that trial"
        super().__init__(f"{path} is damaged: {why}; {way}")


class Held(Exception):  # noqa: N818
    """Another driver works on this sweep."""


class Unreachable(Exception):  # noqa: N818
    """A cluster, database or tracking server does not answer."""


class NoWorkers(Unreachable):
    """The cluster provided no worker within the sweep's waiting time."""
