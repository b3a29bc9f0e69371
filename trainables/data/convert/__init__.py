"""Converters by kind: `convert(kind, source, destination)`."""

from trainables.data.convert.registry import KINDS, Done, convert, options_of

__all__ = ["KINDS", "Done", "convert", "options_of"]
