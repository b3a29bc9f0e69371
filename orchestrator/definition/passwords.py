"""Addresses for people to read: `postgresql://me:word@host/db` is shown as `postgresql://***@host/db`."""

from __future__ import annotations

import re

_WHO = re.compile(r"(?<=://)(?![^/\s:]+:PASSWORD@)[^/\s]+@")


def without_passwords(text: str) -> str:
    """The text; names and passwords before the host of an address are `***`, unless it says PASSWORD itself."""
    return _WHO.sub("***@", text) if "://" in text else text
