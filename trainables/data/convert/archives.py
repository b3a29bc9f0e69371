"""Stream the members of tar archives; a truncated archive is an error, even if cut between members."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from trainables.data.errors import DataError

BLOCK = 512


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each regular file in a .tar, .tar.gz or .tgz. Nothing is written to disk.

    Raises DataError if the archive is damaged, or lacks the zero block at the end of a complete one.
    """
    at = "its first member"
    try:
        with _opened(path) as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
            while (member := archive.next()) is not None:
                if member.isfile():
                    at = member.name
                    content = archive.extractfile(member)
                    assert content
                    yield member.name, content.read()
            raw.seek(archive.offset)
            if raw.read(BLOCK) != bytes(BLOCK):
                raise DataError(path, f"is truncated after {at}: the block that ends an archive is missing")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(path, f"is truncated or damaged at {at}: {error}") from None


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path) if zipped else path.open("rb"))
