"""A database that may be unreachable for a while: calls are retried until it is back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from orchestrator.storage.retry import retry

AWAY_S = 600.0
"""How long a database may be unreachable before the driver gives up; the same command continues the sweep."""
START_S = 30.0
"""The same for a driver that is starting."""
T = TypeVar("T")


def patiently(call: Callable[[], T], patience_s: float = AWAY_S) -> T:
    """`call()`, retried with pauses while the database is unreachable, for at most `patience_s` seconds."""
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
