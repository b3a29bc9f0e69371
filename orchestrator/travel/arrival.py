"""Uploaded code on the cluster: an archive unpacked where the driver runs, and what its workers must find."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.definition.model import Spec
from orchestrator.remote import CODE, Parcel
from orchestrator.storage.object_store import Far, StoreError, own_scratch
from orchestrator.travel.archive import unpack
from orchestrator.travel.code import own_modules, paths_of
from orchestrator.travel.errors import CannotTravel

STORE = "code"
"""Folder of archives under a root in an object store."""


def arrive(place: str) -> Parcel:
    """Unpack the archive at a path or URI, change to its folder and import from it. Raises CannotTravel."""
    archive = _near(place)
    folder, contents = unpack(archive, own_scratch() / "unpacked")
    os.chdir(folder)
    sys.path[:0] = [str(folder), *(str(folder / path) for path in contents.paths)]
    os.environ[CODE] = folder.name
    return Parcel(archive=archive, digest=folder.name, sweep=contents.sweep, paths=contents.paths, folder=str(folder))


def store(parcel: Parcel, root: str) -> str:
    """The URI of the archive under a root in an object store, uploaded once."""
    far = Far(f"{root}/{STORE}", parcel.archive.parent)
    if not far.exists(parcel.archive.name):
        far.push([parcel.archive.name])
    return f"{far.uri}/{parcel.archive.name}"


def needs(spec: Spec) -> tuple[list[str], list[str]]:
    """(modules, absolute paths) that every worker must find: the user's own, and the packages that these import."""
    modules = own_modules(spec)
    own = [name.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".") for name in modules]
    files = [str(path) for _, path in paths_of(spec) if path.is_absolute()]
    return [*own, *sorted(further(modules))], files


def further(modules: Mapping[str, Path]) -> set[str]:
    """Installed packages, by import name, without which these modules cannot be imported."""
    tops = {name.partition("/")[0].removesuffix(".py") for name in modules}
    found = {name.partition(".")[0] for path in modules.values() for name in _demanded(path)}
    return {name for name in found - tops - set(sys.stdlib_module_names) if importlib.util.find_spec(name) is not None}


def _demanded(path: Path) -> Iterator[str]:
    """What a module imports when it is loaded; an import inside a function or in `try` may fail."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module


def _near(place: str) -> Path:
    """The archive on this machine, downloaded from an object store if it is there."""
    folder, _, name = place.rpartition("/")
    if "://" not in place:
        return Path(place).resolve()
    near = own_scratch() / "code"
    if not (near / name).exists():
        try:
            Far(folder, near).fetch([name])
        except StoreError as error:
            raise CannotTravel(f"--code {place}: {error}") from None
    if not (near / name).exists():
        raise CannotTravel(f"--code {place}: no such archive; submit the sweep again")
    return near / name
