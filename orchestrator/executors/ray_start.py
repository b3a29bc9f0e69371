"""Starting a private Ray: failures because the machine is busy are retried, others are not.

On a loaded machine Ray's processes may not answer within its time limits, and a port that was free when it was chosen
may be taken when it is opened. Neither predicts the outcome of the next attempt.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PLACE = "RAY_AUTH_TOKEN_PATH"
TRIES, PAUSE_S = 3, 2.0
PASSING = (
    "timed out",
    "Failed to start GCS",
    "Failed to get node info",
    "No node info found",
    "may not have started successfully",
    "Address already in use",
)
"""Ray's messages (2.60) for processes that did not answer in time; `test_ray_private` checks that they are in its
source.
"""


def passes(error: BaseException) -> bool:
    """Whether the same start may well succeed a moment later."""
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, OSError):
        return error.errno in (errno.EAGAIN, errno.EADDRINUSE)
    return isinstance(error, Exception) and any(words in str(error) for words in PASSING)


def begin(
    start: Callable[[], object],
    undo: Callable[[], object],
    wanted: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Call `start` up to TRIES times, while its failures are transient and it is `wanted`; `undo` cleans up after each.

    Raises the last exception.
    """
    for left in reversed(range(TRIES)):
        try:
            start()
            return
        except BaseException as error:
            undo()
            if not left or not wanted() or not passes(error):
                raise
            sleep(PAUSE_S)


@contextmanager
def token(scratch: Path) -> Iterator[None]:
    """Within this context, Ray uses a token in `scratch` if it cannot keep one in the home folder.

    It creates one in ~/.ray for every cluster, and does not start if it may not write there.
    """
    known = "RAY_AUTH_TOKEN" in os.environ or PLACE in os.environ
    if known or _kept_at_home():
        yield
        return
    path = scratch / "auth_token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32), encoding="utf-8")
    os.environ[PLACE] = str(path)
    try:
        yield
    finally:
        os.environ.pop(PLACE, None)


def _kept_at_home() -> bool:
    """Whether there is a token in the home folder, or Ray may create one."""
    try:
        place = Path.home() / ".ray"
    except RuntimeError:  # there is no home folder
        return False
    there = place / "auth_token"
    return os.access(there, os.R_OK) or os.access(place if place.exists() else place.parent, os.W_OK)
