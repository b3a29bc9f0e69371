"""Data sets on disk: the canonical Parquet layout, its node-local cache, seeded order, augmentation, converters."""

from trainables.data.cache import Columns, columns
from trainables.data.description import DataSet, load, locate
from trainables.data.errors import DataError

__all__ = ["Columns", "DataError", "DataSet", "columns", "load", "locate"]
