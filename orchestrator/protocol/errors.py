"""Why a sweep is not run, or not compared, although its file is valid."""

from __future__ import annotations


class ControlFailed(Exception):  # noqa: N818
    """A special case missed its known answer; no comparison of these arms would mean anything."""


class Unfair(Exception):  # noqa: N818
    """A fair protocol was requested, but the sweep file breaks rules without a stated reason."""


class CodeChanged(Exception):  # noqa: N818
    """The source that trials import is not what was sealed; says which files, and what to do."""
