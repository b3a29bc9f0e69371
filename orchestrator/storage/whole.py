"""Files that are written whole or not at all: until the last of them is on disk, the old ones stay in place."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.definition.errors import UsageError
from orchestrator.storage import disk
from trainables.whole import beside, fill

Contents = Mapping[Path, str | bytes]
"""File -> its content; text is written as UTF-8."""


def make(folder: Path) -> None:
    """Create a folder, with those above it. Raises UsageError for one that nobody can create (in /proc, or in a current
    folder that was deleted).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise UsageError(f"{error.filename}: cannot be created ({error.strerror}); name another place") from None


def write(contents: Contents, *, outdated: Iterable[Path] = (), durable: bool = False) -> list[Path]:
    """Write files of one folder, or of several, that belong together; returns their paths.

    Folders are created. An error, or Ctrl-C, before all are written leaves every old file as it was. `outdated` files
    that are not among the new ones are then removed. `durable`: also after a power failure. What is not a regular file
    (`/dev/stdout`, a pipe) is written to directly, and a link stays one.
    """
    written: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            with disk.named(path.parent):
                make(path.parent)
            place = path.resolve() if path.is_symlink() else path
            written[place] = _beside(place)
            with disk.named(place.parent):
                _fill(written[place], content, place, durable=durable)
        for place, temporary in written.items():
            if temporary != place:
                temporary.replace(place)
    except BaseException:  # a partial file only fills the disk further
        for place, temporary in written.items():
            if temporary != place:
                temporary.unlink(missing_ok=True)
        raise
    for old in set(outdated) - contents.keys():
        old.unlink(missing_ok=True)
    return list(contents)


def _beside(place: Path) -> Path:
    """Where the new content is written; the place itself if it is something else than a file."""
    if place.exists() and not place.is_file() and not place.is_dir():
        return place
    return beside(place)


def _fill(temporary: Path, content: str | bytes, place: Path, *, durable: bool) -> None:
    if place.is_dir():
        raise IsADirectoryError(21, "is a folder", str(place))
    try:
        fill(temporary, content.encode() if isinstance(content, str) else content, durable=durable)
    except OSError as error:
        error.filename = str(place)  # the name that the user knows
        raise
    if temporary != place and place.exists():
        shutil.copymode(place, temporary)
