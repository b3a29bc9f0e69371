"""What every comparison may end in."""

from __future__ import annotations

FLOOR = 6
"""The fewest paired seeds with which an exact test can reach p < 0.05."""


class Refused(Exception):  # noqa: N818
    """The table does not allow an honest comparison; says why."""
