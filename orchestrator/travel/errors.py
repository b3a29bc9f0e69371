"""The error for code that cannot be uploaded."""

from __future__ import annotations


class CannotTravel(Exception):  # noqa: N818
    """A folder that cannot be uploaded as it is, a secret in it, or something that the workers would miss."""
