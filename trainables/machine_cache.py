"""Where this machine keeps what can be made again: $GEOSWEEP_CACHE, else $XDG_CACHE_HOME/geosweep, else
~/.cache/geosweep. It may be removed at any time.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "GEOSWEEP_CACHE"


def folder() -> Path:
    """Where caches of this machine lie. Raises RuntimeError where there is neither a variable nor a home."""
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "geosweep"
