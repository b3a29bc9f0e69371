"""The machine's cache: $GEOSWEEP_CACHE, or $XDG_CACHE_HOME/geosweep, or ~/.cache/geosweep; may be deleted any time."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "GEOSWEEP_CACHE"


def folder() -> Path:
    """The folder of this machine's caches. Raises RuntimeError if neither a variable nor a home directory is set."""
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "geosweep"
