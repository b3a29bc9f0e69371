"""Starting a private Ray: what fails because the machine is busy is tried again, anything else is not.

On a machine under load Ray's processes may not answer within its time limits, and a port that was free when it was
chosen may be taken when it is opened. Neither says anything about the next try.
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
"""Words of Ray's (2.60) for processes that did not answer in time; `test_ray_private` finds them in its source."""


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
    """Call `start` up to TRIES times as long as its failures pass and it is `wanted`; `undo` what each left behind.

    Raises what the last one raised.
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
    """Inside, Ray finds a token of its own in `scratch` where it could keep none below the home folder.

    It makes one in ~/.ray for every cluster, and does not start where it may not write there.
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
    """Whether there is a token below the home folder, or Ray may make one."""
    try:
        place = Path.home() / ".ray"
    except RuntimeError:  # nobody's
        return False
    there = place / "auth_token"
    return os.access(there, os.R_OK) or os.access(place if place.exists() else place.parent, os.W_OK)
