"""The exception that any comparison may raise."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818
    """The data does not allow an honest comparison; the message says why."""
