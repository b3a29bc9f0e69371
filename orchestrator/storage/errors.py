"""What stands between a caller and a sweep: it is not there, somebody else works on it, or nobody answers."""

from __future__ import annotations


class NotFound(Exception):  # noqa: N818
    """No sweep (or trial) of that name under the root."""


class Held(Exception):  # noqa: N818
    """Another driver works on this sweep."""


class Unreachable(Exception):  # noqa: N818
    """A cluster, database or tracking server does not answer."""
