"""The uploaded archive: the same content gives the same bytes, under a name that contains its digest.

The digest is sha256 over names and contents, as the seal combines those of source files (`trial.source.combined`).
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.travel.errors import CannotTravel
from orchestrator.trial.source import combined

MANIFEST = ".geosweep-code.json"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive can represent."""
PLAIN, EXECUTABLE = 0o644, 0o755


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Metadata in the archive."""

    sweep: str
    """Name of the sweep file in the archive."""
    paths: tuple[str, ...] = ()
    """Folders in the archive, besides its root, from which modules are imported."""


def digest_of(files: Mapping[str, Path], contents: Contents) -> str:
    """The digest of the archive's content."""
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    found |= {f"{name} executable": "" for name, path in files.items() if _mode(path) == EXECUTABLE}
    return combined({**found, MANIFEST: hashlib.sha256(_manifest(contents)).hexdigest()})


def pack(files: Mapping[str, Path], contents: Contents, folder: Path) -> Path:
    """`folder/code-DIGEST.zip`, written once."""
    path = folder / f"code-{digest_of(files, contents)}.zip"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        _put(out, MANIFEST, _manifest(contents), PLAIN)
        for name, source in sorted(files.items()):
            _put(out, name, source.read_bytes(), _mode(source))
    temporary.replace(path)
    return path


def unpack(archive: Path, folder: Path) -> tuple[Path, Contents]:
    """(`folder/DIGEST` with the files of an archive, unpacked once; its metadata).

    Raises CannotTravel for a file that is not such an archive or whose content does not match its name.
    """
    digest = archive.stem.removeprefix("code-")
    place = folder / digest
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{os.getpid()}-{digest}"
        try:
            with zipfile.ZipFile(archive) as opened:
                for info in opened.infolist():
                    made = Path(opened.extract(info, temporary))
                    made.chmod(info.external_attr >> 16 & 0o777 or PLAIN)
        except (OSError, zipfile.BadZipFile) as error:
            raise CannotTravel(f"--code {archive}: not an archive made by `submit` or `k8s render`: {error}") from None
        _check(archive, temporary, digest)
        try:
            temporary.rename(place)
        except OSError:  # another process was faster
            if not place.exists():
                raise
    return place, _contents(archive, place)


def _check(archive: Path, unpacked: Path, digest: str) -> None:
    contents = _contents(archive, unpacked)
    files = {p.relative_to(unpacked).as_posix(): p for p in unpacked.rglob("*") if p.is_file()}
    files.pop(MANIFEST)
    if digest_of(files, contents) != digest:
        raise CannotTravel(f"--code {archive}: its content does not match its name; submit the sweep again")


def _contents(archive: Path, unpacked: Path) -> Contents:
    try:
        found = json.loads((unpacked / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CannotTravel(f"--code {archive}: not an archive made by `submit` or `k8s render`") from None
    return Contents(sweep=found["sweep"], paths=tuple(found["paths"]))


def _manifest(contents: Contents) -> bytes:
    return (json.dumps({"sweep": contents.sweep, "paths": list(contents.paths)}) + "\n").encode()


def _mode(path: Path) -> int:
    return EXECUTABLE if os.access(path, os.X_OK) else PLAIN


def _put(out: zipfile.ZipFile, name: str, content: bytes, mode: int) -> None:
    info = zipfile.ZipInfo(name, EPOCH)
    info.compress_type, info.external_attr, info.create_system = zipfile.ZIP_DEFLATED, mode << 16, 3
    try:
        out.writestr(info, content)
    except UnicodeEncodeError:
        raise CannotTravel(f"{name!r}: a file name that is not UTF-8 cannot be uploaded; rename it") from None
