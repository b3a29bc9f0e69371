"""Why a sweep is not run, or not compared, although its file is valid."""

from __future__ import annotations


class ControlFailed(Exception):  # noqa: N818
    """A special case did not come out as it has to; no comparison of these arms means anything."""


class Unfair(Exception):  # noqa: N818
    """A fair protocol was asked for, and the sweep file breaks rules without saying why."""


class CodeChanged(Exception):  # noqa: N818
    """The source that trials import is not what was sealed; says which files, and the ways out."""
