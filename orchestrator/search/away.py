"""A database that may be away for a while: calls are tried again until it is back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from orchestrator.storage.retry import retry

AWAY_S = 600.0
"""How long a database may be away before the driver gives up; the same command then continues the sweep."""
START_S = 30.0
"""The same for a driver that starts."""
T = TypeVar("T")


def patiently(call: Callable[[], T], patience_s: float = AWAY_S) -> T:
    """`call()`, again after a pause while the database is away, for `patience_s` seconds at most."""
    return retry(call, is_away, patience_s=patience_s, first_s=0.25, longest_s=10.0)


def is_away(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that a database cannot be reached."""
    while error is not None:
        if type(error).__name__ in ("OperationalError", "InterfaceError") and "sqlalchemy" in type(error).__module__:
            return True
        error = error.__cause__ or error.__context__
    return False


def first_line(error: BaseException) -> str:
    """The first line of the message, or the kind of error when there is none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
