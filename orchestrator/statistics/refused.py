"""What every comparison may end in."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818
    """The table does not allow an honest comparison; says why."""
